//! `[http]`: the MCP endpoint.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::auth::PublicUrl;
use crate::http::{self, ForwardedHeader, Limits, Proxies};
use crate::network::Network;

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
    /// A proxy in front encrypts; this, or `tls`, is needed for listening beyond loopback. Default
    /// false.
    pub behind_tls_proxy: bool,
    /// Networks of proxies that say whose request it is, and of which there may be any number of
    /// connections. Default none.
    #[serde(deserialize_with = "super::networks", serialize_with = "super::as_texts")]
    pub trusted_proxies: Vec<Network>,
    /// The header in which they say it: `x-forwarded-for` or `forwarded`. Default
    /// `x-forwarded-for`.
    pub forwarded_header: ForwardedHeaderSetting,
    /// Where clients reach the service, such as `https://mcp.example.com`: what access tokens of
    /// issuers are made for. Default none.
    pub public_url: Option<String>,
    /// Longest request body. Default 1 MiB.
    pub max_body_bytes: usize,
    /// How long calls under way may take when the service stops. Default 10.
    pub drain_timeout_seconds: u64,
    /// Most connections; the next is closed. Default 8192.
    pub max_connections: u32,
    /// Most connections from one address, or one /64 of IPv6. Default 1024.
    pub max_connections_per_address: u32,
    /// How long a TLS handshake may take. Default 10000.
    pub handshake_timeout_ms: u64,
    /// How long the head of a request may take. Default 10000.
    pub header_timeout_ms: u64,
    /// How long the body of a request may take. Default 30000.
    pub body_timeout_ms: u64,
    /// How long a client may send nothing of a body, or take less than 32 KiB of what there is of
    /// an answer. Default 20000.
    pub stall_timeout_ms: u64,
    /// How long a connection stays open between requests. Default 120000.
    pub idle_timeout_ms: u64,
    /// Longest head of a request, 1 KiB to 64 KiB. Default 16 KiB.
    pub max_header_bytes: usize,
    /// Most headers of a request. Default 100.
    pub max_headers: usize,
    /// Longest target of a request, with what is asked for. Default 1024.
    pub max_target_bytes: usize,
    /// Most bytes of bodies being handled and of answers not yet taken; what has at most 64 KiB is
    /// not counted. At least `max_body_bytes`. Default 512 MiB.
    pub max_buffered_bytes: u64,
    /// The same of one tenant; but a body or answer is let in where it has none. Default 64 MiB.
    pub max_buffered_bytes_per_tenant: u64,
    /// Whether clients of the older protocol are given sessions. Default false.
    pub sessions: bool,
    /// Most sessions of all tenants together. Default 1000.
    pub max_sessions: usize,
    /// Most sessions of one tenant. Default 100.
    pub max_sessions_per_tenant: usize,
    /// How long a session stays when nobody uses it. Default 300.
    pub session_idle_seconds: u64,
    /// TLS on the listener itself. Default none.
    pub tls: TlsSettings,
}

/// `[http.tls]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsSettings {
    /// PEM file of the certificate, and of those that lead to its authority. Default none: no TLS.
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key, which others cannot read. Default none.
    pub key: Option<PathBuf>,
    /// The oldest version that is spoken: `1.2` or `1.3`. Default `1.2`.
    pub min_version: TlsVersion,
    /// PEM file of the authorities of clients' certificates. Default none: clients show none.
    pub client_ca: Option<PathBuf>,
    /// Files of lists of clients' certificates that were revoked, PEM or DER. Default none.
    pub client_crls: Vec<PathBuf>,
    /// Whether clients have to show one: `required` or `optional`. Default `required`.
    pub client_certificates: ClientCertificatesSetting,
    /// The URI by which a certificate names its tenant, such as
    /// `spiffe://example.com/tenant/{tenant}`: tokens of others are refused then. Default none.
    pub client_tenant_uri: Option<String>,
}

/// `http.forwarded_header`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, missing_docs, reason = "the names of the headers")]
pub enum ForwardedHeaderSetting {
    #[default]
    XForwardedFor,
    Forwarded,
}

/// `http.tls.min_version`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[expect(clippy::exhaustive_enums, missing_docs, reason = "the versions that rustls speaks")]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// `http.tls.client_certificates`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, missing_docs, reason = "yes or no")]
pub enum ClientCertificatesSetting {
    #[default]
    Required,
    Optional,
}

impl Default for HttpSettings {
    fn default() -> Self {
        let Limits {
            max_connections,
            max_connections_per_address,
            handshake_timeout,
            header_timeout,
            body_timeout,
            stall_timeout,
            idle_timeout,
            max_header_bytes,
            max_headers,
            max_target_bytes,
            max_buffered_bytes,
            max_buffered_bytes_per_tenant,
        } = Limits::default();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8_642),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            behind_tls_proxy: false,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeaderSetting::default(),
            public_url: None,
            max_body_bytes: 1 << 20,
            drain_timeout_seconds: 10,
            max_connections,
            max_connections_per_address,
            handshake_timeout_ms: milliseconds(handshake_timeout),
            header_timeout_ms: milliseconds(header_timeout),
            body_timeout_ms: milliseconds(body_timeout),
            stall_timeout_ms: milliseconds(stall_timeout),
            idle_timeout_ms: milliseconds(idle_timeout),
            max_header_bytes,
            max_headers,
            max_target_bytes,
            max_buffered_bytes,
            max_buffered_bytes_per_tenant,
            tls: TlsSettings::default(),
            sessions: false,
            max_sessions: 1_000,
            max_sessions_per_tenant: 100,
            session_idle_seconds: 300,
        }
    }
}

impl HttpSettings {
    /// Whether the settings fit together, and calls may be listened for at `listen`.
    pub(super) fn check(&self, listen: SocketAddr) -> Result<(), Error> {
        self.options().check().map_err(|invalid| Error {
            place: match invalid {
                http::InvalidName::Host(_) => "http.allowed_hosts".to_owned(),
                http::InvalidName::Origin(_) => "http.allowed_origins".to_owned(),
            },
            message: invalid.to_string(),
        })?;
        let refuse = |key: &str, message: &str| {
            Err(Error { place: format!("http.{key}"), message: message.to_owned() })
        };
        for (key, value) in [
            ("max_connections", self.max_connections.into()),
            ("max_connections_per_address", self.max_connections_per_address.into()),
            ("handshake_timeout_ms", self.handshake_timeout_ms),
            ("header_timeout_ms", self.header_timeout_ms),
            ("body_timeout_ms", self.body_timeout_ms),
            ("stall_timeout_ms", self.stall_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
        ] {
            if value == 0 {
                return refuse(key, "must be at least 1: there is no way to have no limit");
            }
        }
        if !(1 << 10..=64 << 10).contains(&self.max_header_bytes) {
            return refuse("max_header_bytes", "must be from 1024 to 65536");
        }
        if !(16..=1_000).contains(&self.max_headers) {
            return refuse("max_headers", "must be from 16 to 1000");
        }
        if !(128..=self.max_header_bytes).contains(&self.max_target_bytes) {
            return refuse("max_target_bytes", "must be from 128 to http.max_header_bytes");
        }
        if self.max_buffered_bytes < self.max_body_bytes as u64 {
            return refuse("max_buffered_bytes", "must be at least http.max_body_bytes");
        }
        let tls = &self.tls;
        if tls.certificate.is_some() != tls.key.is_some() {
            let absent = if tls.key.is_some() { "tls.certificate" } else { "tls.key" };
            return refuse(absent, "certificate and key are needed both");
        }
        if tls.certificate.is_none() && tls.client_ca.is_some() {
            return refuse("tls.client_ca", "needs http.tls.certificate and http.tls.key");
        }
        if tls.client_ca.is_none() && !tls.client_crls.is_empty() {
            return refuse("tls.client_crls", "needs http.tls.client_ca");
        }
        if let Some(uri) = &tls.client_tenant_uri {
            if tls.client_ca.is_none() {
                return refuse("tls.client_tenant_uri", "needs http.tls.client_ca");
            }
            if let Err(error) = uri.parse::<http::TenantUri>() {
                return refuse("tls.client_tenant_uri", &error.to_string());
            }
        }
        let is_encrypted = self.behind_tls_proxy || tls.certificate.is_some();
        if listen.ip().is_loopback() || (is_encrypted && !self.allowed_hosts.is_empty()) {
            return Ok(());
        }
        let message = "to listen beyond loopback, set http.tls.certificate and http.tls.key, or put \
                       a proxy with TLS in front and set http.behind_tls_proxy = true; and set \
                       http.allowed_hosts = [\"its.name\"]";
        Err(Error { place: format!("http.listen {listen}"), message: message.to_owned() })
    }

    /// [`Self::public_url`], read.
    pub(super) fn public_url(&self) -> Result<Option<PublicUrl>, Error> {
        let parsed = self.public_url.as_deref().map(PublicUrl::parse).transpose();
        parsed.map_err(|message| Error {
            place: "http.public_url".to_owned(),
            message: message.to_owned(),
        })
    }

    pub(super) fn options(&self) -> http::Options {
        http::Options {
            allowed_hosts: self.allowed_hosts.clone(),
            allowed_origins: self.allowed_origins.clone(),
            max_body_bytes: self.max_body_bytes,
            drain_timeout: Duration::from_secs(self.drain_timeout_seconds),
            limits: Limits {
                max_connections: self.max_connections,
                max_connections_per_address: self.max_connections_per_address,
                handshake_timeout: Duration::from_millis(self.handshake_timeout_ms),
                header_timeout: Duration::from_millis(self.header_timeout_ms),
                body_timeout: Duration::from_millis(self.body_timeout_ms),
                stall_timeout: Duration::from_millis(self.stall_timeout_ms),
                idle_timeout: Duration::from_millis(self.idle_timeout_ms),
                max_header_bytes: self.max_header_bytes,
                max_headers: self.max_headers,
                max_target_bytes: self.max_target_bytes,
                max_buffered_bytes: self.max_buffered_bytes,
                max_buffered_bytes_per_tenant: self.max_buffered_bytes_per_tenant,
            },
            proxies: Proxies {
                networks: self.trusted_proxies.clone(),
                header: match self.forwarded_header {
                    ForwardedHeaderSetting::Forwarded => ForwardedHeader::Forwarded,
                    ForwardedHeaderSetting::XForwardedFor => ForwardedHeader::XForwardedFor,
                },
            },
            tls: self.tls.options(),
            behind_tls_proxy: self.behind_tls_proxy,
            sessions: self.sessions.then(|| http::SessionOptions {
                // One at least, or there is none to give way.
                max: self.max_sessions.max(1),
                max_per_tenant: self.max_sessions_per_tenant.max(1),
                idle_timeout: Duration::from_secs(self.session_idle_seconds),
            }),
        }
    }
}

impl TlsSettings {
    fn options(&self) -> Option<http::TlsOptions> {
        let clients = self.client_ca.clone().map(|authorities| http::ClientCertificates {
            authorities,
            revocation_lists: self.client_crls.clone(),
            is_required: matches!(self.client_certificates, ClientCertificatesSetting::Required),
            // Whether it is one has been checked.
            tenant_uri: self.client_tenant_uri.as_deref().and_then(|uri| uri.parse().ok()),
        });
        Some(http::TlsOptions {
            certificate: self.certificate.clone()?,
            key: self.key.clone()?,
            is_1_3_only: matches!(self.min_version, TlsVersion::Tls13),
            clients,
        })
    }
}
