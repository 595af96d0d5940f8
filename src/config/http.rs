//! `[http]`: the MCP endpoint.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::http;

/// `[http]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HttpSettings {
    /// Address and port. Default 127.0.0.1:8642; port 0 picks one.
    pub listen: SocketAddr,
    /// Values of `Host` that are served; without a port, on any. Default: loopback names.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are served. Default: loopback.
    pub allowed_origins: Vec<String>,
    /// A proxy in front encrypts; needed for listening beyond loopback. Default false.
    pub behind_tls_proxy: bool,
    /// Longest request body. Default 1 MiB.
    pub max_body_bytes: usize,
    /// How long calls under way may take when the service stops. Default 10.
    pub drain_timeout_seconds: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8_642),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            behind_tls_proxy: false,
            max_body_bytes: 1 << 20,
            drain_timeout_seconds: 10,
        }
    }
}

impl HttpSettings {
    /// Whether calls may be listened for at `listen`.
    pub(super) fn check(&self, listen: SocketAddr) -> Result<(), Error> {
        self.options().check().map_err(|invalid| Error {
            place: match invalid {
                http::InvalidName::Host(_) => "http.allowed_hosts".to_owned(),
                http::InvalidName::Origin(_) => "http.allowed_origins".to_owned(),
            },
            message: invalid.to_string(),
        })?;
        if listen.ip().is_loopback() || (self.behind_tls_proxy && !self.allowed_hosts.is_empty()) {
            return Ok(());
        }
        let message = "to listen beyond loopback, put a proxy with TLS in front and set \
                       http.behind_tls_proxy = true and http.allowed_hosts = [\"its.name\"]";
        Err(Error { place: format!("http.listen {listen}"), message: message.to_owned() })
    }

    pub(super) fn options(&self) -> http::Options {
        http::Options {
            allowed_hosts: self.allowed_hosts.clone(),
            allowed_origins: self.allowed_origins.clone(),
            max_body_bytes: self.max_body_bytes,
            drain_timeout: Duration::from_secs(self.drain_timeout_seconds),
        }
    }
}
