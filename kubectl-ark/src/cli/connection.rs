//! The flags of kubectl that say how a cluster is reached and as whom; each means what it means there.

use clap::Args;
use std::path::PathBuf;

/// Left out of the help pages, which they would fill: they are rarely typed, and `kubectl options` explains them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ConnectionFlags {
    /// Cluster of the kubeconfig to use instead of the context's
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// User of the kubeconfig to use instead of the context's
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Address of the API server
    #[arg(long, short = 's', global = true, hide = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token for the API server
    #[arg(long, global = true, hide = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// User to impersonate
    #[arg(
        id = "impersonate",
        long = "as",
        global = true,
        hide = true,
        value_name = "USER"
    )]
    pub impersonate: Option<String>,
    /// Group to impersonate (repeatable)
    #[arg(id = "impersonate_groups", long = "as-group", global = true, hide = true, value_name = "GROUP",
        action = clap::ArgAction::Append)]
    pub impersonate_groups: Vec<String>,
    /// UID to impersonate
    #[arg(
        id = "impersonate_uid",
        long = "as-uid",
        global = true,
        hide = true,
        value_name = "UID"
    )]
    pub impersonate_uid: Option<String>,
    /// Certificate authority of the API server, a PEM file
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Client certificate, a PEM file
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// Key of the client certificate, a PEM file
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Name that the API server's certificate must have
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Do not check the API server's certificate: insecure
    #[arg(long, global = true, hide = true)]
    pub insecure_skip_tls_verify: bool,
    /// How long to wait for the answer to one request (5s, 2m), 0 for ever
    #[arg(long, global = true, hide = true, value_name = "DURATION")]
    pub request_timeout: Option<String>,
}
