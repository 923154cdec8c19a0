//! The TLS of the configuration's sections `restapi` and `ctl`: what the REST API shows, and what this member shows to others'.

use pgherd_tls::{AskClients, Check, ClientOptions, Identity, ServerOptions, TlsError};
use rustls::{ClientConfig, ServerConfig};

use crate::config::{Ctl, Tls, VerifyClient};
use crate::postgres::Secret;

pub(super) fn of_server(tls: &Tls) -> Result<ServerConfig, TlsError> {
    pgherd_tls::server(&ServerOptions {
        identity: Identity {
            certificate: &tls.certfile,
            key: tls.keyfile.as_deref(),
            key_password: tls.keyfile_password.as_ref().map(Secret::expose),
        },
        ask_clients: match tls.verify_client {
            VerifyClient::None => AskClients::No,
            VerifyClient::Optional => AskClients::Optional,
            VerifyClient::Required => AskClients::Required,
        },
        authorities: tls.cafile.as_deref(),
        ciphers: tls.ciphers.as_deref(),
    })
}

/// As Patroni has it: without a certificate of its own a member believes the others unseen, since their answers only hint at whether it
/// makes sense to go on, and the store decides. With one it wants theirs to be signed, for whatever name.
pub(super) fn to_peers(ctl: &Ctl) -> Result<ClientConfig, TlsError> {
    let identity = ctl.certfile.as_deref().map(|certificate| Identity {
        certificate,
        key: ctl.keyfile.as_deref(),
        key_password: ctl.keyfile_password.as_ref().map(Secret::expose),
    });
    let check = if identity.is_some() { Check::Authority } else { Check::Nothing };
    pgherd_tls::client(&ClientOptions { check, authorities: ctl.cacert.as_deref(), identity, revoked: &[] })
}
