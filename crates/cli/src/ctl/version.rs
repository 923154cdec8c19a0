//! `pgherd version`: of this program and, for a cluster, of every member.

use clap::Args;
use futures::future::join_all;
use pgherd_ha::Member;
use reqwest::Method;
use serde_json::Value;

use super::context::{Access, Context};
use super::rest;
use crate::arguments::Program;

/// The level of Patroni's interfaces that pgherd speaks.
pub const PATRONI_LEVEL: &str = "4.1.4";

#[derive(Args, Clone, Debug, Default)]
pub struct VersionArguments {
    /// The cluster whose members are asked
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Only these members
    #[arg(value_name = "MEMBER")]
    pub members: Vec<String>,
    #[command(flatten)]
    pub access: Access,
}

/// Without a cluster only this program answers, so no store is needed.
pub fn own(program: Program) -> String {
    match program {
        Program::Pgherd => format!("pgherd version {} (Patroni {PATRONI_LEVEL})", env!("CARGO_PKG_VERSION")),
        // As that prints for --version.
        Program::Patroni => format!("patroni {PATRONI_LEVEL}"),
        Program::Patronictl => format!("patronictl version {PATRONI_LEVEL}"),
    }
}

pub async fn run(arguments: VersionArguments, program: Program, context: &mut Context) -> anyhow::Result<()> {
    context.terminal.line(&own(program))?;
    let Some(cluster) = arguments.cluster else { return Ok(()) };
    context.terminal.line("")?;
    let view = context.load(&cluster).await?;
    let wanted = |member: &&Member| arguments.members.is_empty() || arguments.members.contains(&member.name);
    let asked = view.members.iter().filter(wanted).filter(|member| !member.api_url.is_empty());
    // All at once: one member that is gone must not hold up the others.
    let lines = join_all(asked.map(|member| async {
        let path = reqwest::Url::parse(&member.api_url).map_or("/patroni".to_owned(), |url| url.path().to_owned());
        let answer = match context.rest.call(member, Method::GET, &path, None, rest::SHORT).await {
            Ok(reply) => serde_json::from_str(&reply.body)
                .map_err(|_| format!("its answer is no JSON (status {})", reply.status)),
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(status) => format!("{}: {}", member.name, versions(&status)),
            Err(error) => format!("{}: failed to get version: {error}", member.name),
        }
    }))
    .await;
    for line in lines {
        context.terminal.line(&line)?;
    }
    Ok(())
}

/// `Patroni 4.1.4 PostgreSQL 15.18`, and pgherd's own version where it is one.
fn versions(status: &Value) -> String {
    let field = |name: &str| status.get("patroni").and_then(|patroni| patroni.get(name)).and_then(Value::as_str);
    let mut text = format!("Patroni {}", field("version").unwrap_or("unknown"));
    if let Some(server) = status.get("server_version").and_then(Value::as_u64) {
        text.push_str(&format!(" PostgreSQL {}", server_version(server)));
    }
    if let Some(pgherd) = field("pgherd").or_else(|| status.get("pgherd").and_then(Value::as_str)) {
        text.push_str(&format!(" (pgherd {pgherd})"));
    }
    text
}

/// 150018 is 15.18; before version 10, 90603 was 9.6.3.
fn server_version(number: u64) -> String {
    match number {
        100_000.. => format!("{}.{}", number / 10_000, number % 10_000),
        _ => format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_as_members_report_them() {
        for (status, expected) in [
            (json!({"patroni": {"version": "4.1.4"}, "server_version": 150018}), "Patroni 4.1.4 PostgreSQL 15.18"),
            (json!({"patroni": {"version": "4.1.4"}, "server_version": 90603}), "Patroni 4.1.4 PostgreSQL 9.6.3"),
            (json!({"patroni": {"version": "4.1.4", "pgherd": "0.1.0"}}), "Patroni 4.1.4 (pgherd 0.1.0)"),
            (json!([]), "Patroni unknown"),
        ] {
            assert_eq!(versions(&status), expected);
        }
    }
}
