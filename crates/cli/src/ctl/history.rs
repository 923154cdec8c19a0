//! `pgherd history`: how each timeline of the cluster ended.

use clap::Args;
use pgherd_ha::View;

use super::context::{Access, Context};
use super::table::{Align, Column, Format, Table};

#[derive(Args, Clone, Debug, Default)]
pub struct HistoryArguments {
    /// The cluster [default: the configured scope]
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    #[command(flatten)]
    pub access: Access,
}

pub async fn run(arguments: HistoryArguments, context: &mut Context) -> anyhow::Result<()> {
    let cluster = context.cluster(arguments.cluster.as_deref(), "history")?;
    let view = context.load(&cluster).await?;
    Ok(context.terminal.print(&table_of(&view).render(arguments.format))?)
}

fn table_of(view: &View) -> Table {
    let column = |name: &'static str, align| Column { name: name.into(), align };
    let columns = vec![
        column("TL", Align::Right),
        column("LSN", Align::Right),
        column("Reason", Align::Left),
        column("Timestamp", Align::Left),
        column("New Leader", Align::Left),
    ];
    let rows = view.history.iter().map(|line| {
        vec![
            line.timeline.0.into(),
            line.switch_lsn.0.into(),
            line.reason.as_str().into(),
            line.timestamp.as_deref().unwrap_or_default().into(),
            line.new_leader.as_deref().unwrap_or_default().into(),
        ]
    });
    Table { title: None, columns, rows: rows.collect(), omit_empty: false }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ctl::fake::view;

    /// As Patroni's console (4.1.5) printed it.
    #[test]
    fn the_lines_of_the_key() {
        let keys = json!({"history": [[1, 50331800, "no recovery target specified", "2026-11-23T00:23:21.389539+00:00", "n1"],
            [2, 50331900, "x"]]});
        let expected = "\
+----+----------+------------------------------+----------------------------------+------------+
| TL |      LSN | Reason                       | Timestamp                        | New Leader |
+----+----------+------------------------------+----------------------------------+------------+
|  1 | 50331800 | no recovery target specified | 2026-11-23T00:23:21.389539+00:00 | n1         |
|  2 | 50331900 | x                            |                                  |            |
+----+----------+------------------------------+----------------------------------+------------+
";
        assert_eq!(table_of(&view(&keys)).render(Format::Pretty), expected);
        assert!(table_of(&view(&keys)).render(Format::Json).ends_with(
            r#""Timestamp": "", "New Leader": ""}]
"#
        ));
    }
}
