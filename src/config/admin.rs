//! `[admin]`: the admin API.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Error;

/// `[admin]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdminSettings {
    /// Address and port, beside the socket in the data directory; port 0 picks one. Default none.
    pub listen: Option<SocketAddr>,
}

impl AdminSettings {
    /// Whether operators may be listened for there: their tokens come in clear text.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Some(listen) = self.listen.filter(|listen| !listen.ip().is_loopback()) else {
            return Ok(());
        };
        let message = "the admin API listens at a loopback address only: reach it through ssh, or a \
                       proxy with TLS on this host that sends it Host: localhost";
        Err(Error { place: format!("admin.listen {listen}"), message: message.to_owned() })
    }
}
