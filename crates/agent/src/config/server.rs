//! The configuration as `postgres` wants it: one server in one role.

use pgherd_ha::Role;

use super::{Config, Dynamic};
use crate::postgres::parameters::is_recovery_parameter;
use crate::postgres::{Hooks, Server};

impl Config {
    /// The server of this node as file, environment and store together describe it, while it has `role`.
    pub fn server(&self, dynamic: &Dynamic, role: Role) -> Server {
        let postgresql = &dynamic.postgresql;
        // Recovery settings among the parameters belong with the recovery settings, which win.
        let (mut recovery_conf, parameters): (_, _) = partition(postgresql.parameters_for(role), is_recovery_parameter);
        recovery_conf.extend(postgresql.recovery_conf.clone());
        recovery_conf.extend(dynamic.recovery_of_standby_cluster(role));
        Server {
            name: self.name.clone(),
            scope: self.scope.clone(),
            bin_dir: postgresql.bin_dir.clone(),
            bin_names: postgresql.bin_names.clone(),
            data_dir: self.node.data_dir.clone(),
            config_dir: self.node.config_dir.clone(),
            config_base_name: postgresql.config_base_name.clone(),
            custom_conf: postgresql.custom_conf.clone(),
            listen_addresses: self.node.listen.hosts.join(","),
            port: self.node.listen.port,
            database: postgresql.database.clone(),
            pgpass: self.node.pgpass.clone(),
            superuser: self.node.superuser.clone(),
            replication: self.node.replication.clone(),
            rewind: self.node.rewind.clone(),
            parameters,
            recovery_conf,
            pg_hba: postgresql.pg_hba_for(role).to_vec(),
            bootstrap_pg_hba: self.bootstrap.pg_hba.clone(),
            pg_ident: postgresql.pg_ident_for(role).to_vec(),
            initdb_options: self.bootstrap.initdb.clone(),
            basebackup_options: postgresql.basebackup.clone(),
            rewind_options: postgresql.rewind.clone(),
            replica_methods: postgresql.replica_methods.clone(),
            standby_cluster_methods: dynamic.standby_cluster_methods.clone(),
            custom_bootstrap: self.bootstrap.custom.clone(),
            hooks: Hooks {
                pre_promote: postgresql.pre_promote.clone(),
                before_stop: postgresql.before_stop.clone(),
                post_bootstrap: self.bootstrap.post_bootstrap.clone(),
            },
            use_unix_socket: postgresql.use_unix_socket,
            krbsrvname: postgresql.krbsrvname.clone(),
            standby_names: None,
            admits_clients: true,
            bootstraps: false,
        }
    }
}

type Parameters = std::collections::BTreeMap<String, String>;

fn partition(parameters: Parameters, belongs: impl Fn(&str) -> bool) -> (Parameters, Parameters) {
    parameters.into_iter().partition(|(name, _)| belongs(name))
}
