//! From sections as written to a configuration: frontends find their backends, and what cannot be served is refused.

use std::collections::BTreeSet;

use super::proxy::{Kind, Mode, Section};
use super::{Report, Sections};
use crate::config::{CheckKind, Config, DEFAULT_MAXCONN, Listener, Role, StatsListener};

pub fn config(found: Sections, report: &mut Report) -> Config {
    refuse_duplicates(&found.sections, report);
    let mut config = Config {
        maxconn: found.global.maxconn.map_or(DEFAULT_MAXCONN, |maxconn| maxconn as usize),
        threads: found.global.threads.map(|threads| threads as usize),
        listeners: vec![],
        stats: vec![],
    };
    let (backends, fronts): (Vec<_>, Vec<_>) =
        found.sections.into_iter().partition(|section| section.kind == Kind::Backend);
    let fronts: Vec<_> = fronts.into_iter().filter(|section| !section.disabled).collect();
    refuse_same_addresses(&fronts, report);
    for front in fronts {
        if front.binds.is_empty() {
            report.error(front.line, &front.name, "it has no `bind` line, so no client can reach it");
        } else if front.stats_enabled && front.mode == Mode::Http && front.servers.is_empty() {
            config.stats.push(StatsListener {
                name: front.name,
                binds: front.binds,
                uri: front.stats_uri,
                refresh: front.stats_refresh,
            });
        } else if front.mode == Mode::Http {
            report.error(
                front.line,
                &front.name,
                "`mode http` serves only the stats page here (stats enable, no servers); \
                PostgreSQL needs `mode tcp`",
            );
        } else {
            config.listeners.extend(listener(front, &backends, report));
        }
    }
    if config.listeners.is_empty() && report.errors.is_empty() {
        report.error(
            1,
            "listen",
            "no service for clients is configured; expected a `listen NAME` with `mode tcp`, `bind` and `server`",
        );
    }
    config
}

/// Joins a frontend with its backend; a `listen` is both.
fn listener(front: Section, backends: &[Section], report: &mut Report) -> Option<Listener> {
    let back = match &front.default_backend {
        None if front.kind == Kind::Listen => front.clone(),
        None => {
            report.error(front.line, &front.name, "expected `default_backend NAME` in a frontend");
            return None;
        }
        Some((line, name)) => match backends.iter().find(|backend| &backend.name == name) {
            Some(backend) => backend.clone(),
            None => {
                report.error(*line, name, "there is no `backend` of this name");
                return None;
            }
        },
    };
    let mut servers = back.servers;
    if front.default_backend.is_some() {
        servers.extend(front.servers);
    }
    refuse_same_names(&servers, report);
    let servers: Vec<_> = servers.into_iter().filter_map(|server| server.server()).collect();
    if servers.is_empty() {
        report.error(front.line, &front.name, "it has no `server` to send clients to");
        return None;
    }
    let check = match back.httpchk {
        Some(mut check) => {
            check.expect = back.expect.unwrap_or_default();
            CheckKind::Http(check)
        }
        None => CheckKind::Tcp,
    };
    let mut timeouts = back.timeouts;
    timeouts.client = front.timeouts.client;
    Some(Listener {
        name: front.name,
        binds: front.binds,
        maxconn: front.maxconn.map(|maxconn| maxconn as usize),
        role: Role::from_check(&check),
        check,
        timeouts,
        balance: back.balance,
        all_backups: back.all_backups,
        servers,
    })
}

fn refuse_duplicates(sections: &[Section], report: &mut Report) {
    let mut seen = BTreeSet::new();
    for section in sections {
        // A frontend and a backend may share a name; a `listen` is both.
        let sides: &[bool] = match section.kind {
            Kind::Frontend => &[true],
            Kind::Backend => &[false],
            _ => &[true, false],
        };
        let taken = sides.iter().filter(|side| !seen.insert((**side, section.name.clone()))).count();
        if taken > 0 {
            report.error(section.line, &section.name, "another section has this name already");
        }
    }
}

/// The kernel would spread the clients over both. Port 0 is another one each time.
fn refuse_same_addresses(fronts: &[Section], report: &mut Report) {
    let mut seen = BTreeSet::new();
    for front in fronts {
        for bind in front.binds.iter().filter(|bind| bind.address.port() != 0) {
            if !seen.insert(bind.address) {
                report.error(
                    front.line,
                    &front.name,
                    format!("another `bind` has the address {} already", bind.address),
                );
            }
        }
    }
}

fn refuse_same_names(servers: &[super::server::ServerLine], report: &mut Report) {
    let mut seen = BTreeSet::new();
    for server in servers {
        if !seen.insert(&server.name) {
            report.error(server.line, &server.name, "another server of this service has this name already");
        }
    }
}
