//! `/;csv`: HAProxy's columns in HAProxy's order, for the tools that read them. What does not apply stays empty, as there.

use super::rows::{Kind, Row};

/// The columns of HAProxy 2.6 up to `agg_check_status`; its later ones are about TLS and HTTP.
const COLUMNS: &str = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,\
weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,\
check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,\
req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,\
ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,agent_rise,agent_fall,\
agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,\
cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,\
need_conn_est,uweight,agg_server_status,agg_server_check_status,agg_check_status";

pub fn table(rows: &[Row]) -> String {
    let mut text = format!("# {COLUMNS},\n");
    for row in rows {
        for column in COLUMNS.split(',') {
            text.push_str(&quoted(value(row, column).unwrap_or_default()));
            text.push(',');
        }
        text.push('\n');
    }
    text
}

fn value(row: &Row, column: &str) -> Option<String> {
    let text = |value: &dyn ToString| Some(value.to_string());
    let seconds = |time: std::time::Duration| time.as_secs().to_string();
    match column {
        "pxname" => text(&row.proxy),
        "svname" => text(&row.name),
        "qcur" => row.held.map(|n| n.to_string()).or_else(|| (row.kind == Kind::Server).then(|| "0".into())),
        "qmax" => row.most_held.map(|n| n.to_string()).or_else(|| (row.kind == Kind::Server).then(|| "0".into())),
        "scur" => text(&row.sessions),
        "smax" => text(&row.most_sessions),
        "slim" => row.limit.map(|n| n.to_string()),
        "stot" => text(&row.total),
        "bin" => text(&row.bytes_in),
        "bout" => text(&row.bytes_out),
        "econ" => row.dial_errors.map(|n| n.to_string()),
        "eresp" => row.lost.map(|n| n.to_string()),
        "wretr" | "wredis" => row.retries.map(|n| n.to_string()),
        "status" => text(&row.status),
        "weight" => row.weight.map(|n| n.to_string()),
        "act" => row.backup.map(|backup| u8::from(!backup).to_string()),
        "bck" => row.backup.map(|backup| u8::from(backup).to_string()),
        "chkfail" => row.checks_failed.map(|n| n.to_string()),
        "chkdown" => row.times_down.map(|n| n.to_string()),
        "lastchg" => row.since_change.map(seconds),
        "downtime" => row.downtime.map(seconds),
        "pid" => Some("1".into()),
        "iid" => text(&row.proxy_id),
        "sid" => text(&row.server_id),
        "lbtot" if row.kind != Kind::Frontend => text(&row.total),
        "conn_tot" if row.kind == Kind::Frontend => text(&row.total),
        "type" => text(&match row.kind {
            Kind::Frontend => 0,
            Kind::Backend => 1,
            Kind::Server => 2,
        }),
        "check_status" => row.check_code.map(str::to_owned),
        "check_code" => row.check_status.map(|n| n.to_string()),
        "check_duration" => row.check_took.map(|time| time.as_millis().to_string()),
        "last_chk" => row.because.map(str::to_owned),
        "check_rise" => row.rise_fall.map(|(rise, _)| rise.to_string()),
        "check_fall" => row.rise_fall.map(|(_, fall)| fall.to_string()),
        "addr" => row.address.clone(),
        "mode" => Some("tcp".into()),
        "algo" => row.balance.map(str::to_owned),
        _ => None,
    }
}

fn quoted(value: String) -> String {
    if value.contains([',', '"', '\n']) { format!("\"{}\"", value.replace('"', "\"\"")) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_stand_where_haproxy_has_them() {
        let columns: Vec<_> = COLUMNS.split(',').collect();
        // Positions, from 1, that tools which read by number depend on.
        for (position, name) in
            [(1, "pxname"), (8, "stot"), (18, "status"), (33, "type"), (37, "check_status"), (74, "addr")]
        {
            assert_eq!(columns[position - 1], name);
        }
    }

    #[test]
    fn values_with_commas_are_quoted() {
        assert_eq!(quoted("a,\"b\"".into()), "\"a,\"\"b\"\"\"");
    }
}
