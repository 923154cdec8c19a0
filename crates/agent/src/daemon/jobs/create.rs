//! Making a data directory: a new cluster, or a replica of one.

use std::time::Duration;

use pgherd_ha::StopMode;
use tokio::sync::watch;

use super::advice::with_advice;
use super::stop::stop_server;
use super::{Context, Report, STANDSTILL, full, server_of};
use crate::postgres::base_backup::{self, CopyProgress};
use crate::postgres::unfinished::Unfinished;
use crate::postgres::{
    self, Connection, Marker, Purpose, ReplicaMethod, archive, hooks, initdb, installation, own_method, roles,
};

/// initdb writes some 40 MB.
const INITDB: Duration = Duration::from_secs(120);

pub(super) async fn by_initdb(context: &Context) -> Result<Report, String> {
    installation::check_programs(&context.server).map_err(full)?;
    initdb::initdb(&context.server, INITDB).await.map_err(|error| with_advice(&context.server, error.full()))?;
    Ok(Report { new_data: true, ..Report::default() })
}

pub(super) async fn custom_bootstrap(context: &Context) -> Result<Report, String> {
    let Some(custom) = &context.server.custom_bootstrap else {
        return Err("the configuration names no method any more to make a cluster with".into());
    };
    own_method::bootstrap(&context.server, custom).await.map_err(full)?;
    Ok(Report { new_data: true, ..Report::default() })
}

pub(super) async fn make_roles(context: &Context) -> Result<Report, String> {
    let server = &context.server;
    let mut connection = Connection::new(server, Purpose::Heartbeat);
    roles::create_roles(&mut connection).await.map_err(full)?;
    if let Some(command) = &server.hooks.post_bootstrap {
        tracing::info!("running bootstrap.post_bootstrap: {command}");
        let login = hooks::local_login(server).map_err(full)?;
        command
            .with([login.conninfo])
            .run(&server.data_dir, &login.environment, None)
            .await
            .map_err(|error| error.to_string())?;
    }
    Marker::NewCluster.clear(&server.data_dir).map_err(full)?;
    Ok(Report { bootstrapped: true, ..Report::default() })
}

pub(super) async fn abandon_bootstrap(context: &Context) -> Result<Report, String> {
    stop_server(context, StopMode::Immediate).await?;
    let data_dir = context.server.data_dir.clone();
    let moved = tokio::task::spawn_blocking(move || {
        postgres::data_directory::move_failed_aside(&data_dir, Marker::NewCluster.since(&data_dir))
    });
    let moved = moved.await;
    let moved = moved.map_err(|error| error.to_string())?.map_err(full)?;
    if let Some(aside) = moved {
        tracing::warn!("what was made of the new cluster lies in {}", aside.display());
    }
    Ok(Report { postmaster: Some(None), new_data: true, following: Some(None), ..Report::default() })
}

/// Ours is stopped first: the copy takes its place as soon as it is complete. The methods are tried in the order of the configuration.
pub(super) async fn make_replica(
    context: &Context,
    source: Option<&pgherd_ha::Upstream>,
    make_room: bool,
    from_leader: bool,
) -> Result<Report, String> {
    stop_server(context, StopMode::Fast).await?;
    if context.control.is_some() {
        archive::archive_ready(&context.server).await;
    }
    let server = &context.server;
    let base_backup = [ReplicaMethod::BaseBackup];
    let of_another = source.is_none_or(|source| source.remote.is_some()) && !server.standby_cluster_methods.is_empty();
    let methods = match (from_leader, of_another) {
        (true, _) => base_backup.as_slice(),
        (false, true) => server.standby_cluster_methods.as_slice(),
        (false, false) => server.replica_methods.as_slice(),
    };
    let mut failures = Vec::new();
    for method in methods {
        let made = match (method, source) {
            (ReplicaMethod::BaseBackup, Some(source)) => copy(context, source, make_room).await,
            (ReplicaMethod::Own(method), Some(source)) => {
                own_method::make_replica(server, method, Some(&server_of(source)), make_room).await.map_err(full)
            }
            (ReplicaMethod::Own(method), None) if method.no_leader => {
                own_method::make_replica(server, method, None, make_room).await.map_err(full)
            }
            (ReplicaMethod::BaseBackup | ReplicaMethod::Own(_), None) => continue,
        };
        match made {
            Ok(()) => {
                Unfinished::clear(&server.data_dir).map_err(full)?;
                return Ok(Report {
                    postmaster: Some(None),
                    new_data: true,
                    following: Some(None),
                    ..Report::default()
                });
            }
            Err(error) => failures.push(error),
        }
    }
    Err(match failures.is_empty() {
        true => "there is no server to copy from, and no method that needs none".to_owned(),
        false => failures.join("; then: "),
    })
}

async fn copy(context: &Context, source: &pgherd_ha::Upstream, make_room: bool) -> Result<(), String> {
    let (progress, mut seen) = watch::channel(CopyProgress::default());
    let upstream = server_of(source);
    let told = async {
        let mut shown = 0;
        while seen.changed().await.is_ok() {
            let CopyProgress { done, total } = *seen.borrow_and_update();
            let percent = (done * 100).checked_div(total).unwrap_or(0);
            if percent >= shown + 10 {
                shown = percent;
                tracing::info!("base backup of {}: {percent} % of {} MB", source.name, total >> 20);
            }
        }
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = base_backup::base_backup(&context.server, &upstream, STANDSTILL, make_room, &progress) => result,
        () = told => Ok(()),
    };
    result.map_err(|error| with_advice(&context.server, error.full()))
}
