//! Settings that change while the service runs. Where they come from is for who starts it to say.

use std::fmt;
use std::sync::OnceLock;

use super::TenantMcpManager;
use crate::pool;

/// What became of settings that were read anew.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "the answer of a command")]
pub struct Reloaded {
    /// The names of those that have changed.
    pub applied: Vec<String>,
    /// The names of those that will have, after a restart.
    pub needs_restart: Vec<String>,
}

/// Reads the settings anew; or says what is wrong with them, and changes nothing.
type Reload = Box<dyn Fn() -> Result<Reloaded, String> + Send + Sync>;

/// How settings are read anew, once somebody has said so.
#[derive(Default)]
pub(super) struct Reloading(OnceLock<Reload>);

impl fmt::Debug for Reloading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reloading({})", self.0.get().is_some())
    }
}

impl TenantMcpManager {
    /// Has [`Self::reload`] do `reload`. The first caller decides.
    pub fn reload_by(&self, reload: impl Fn() -> Result<Reloaded, String> + Send + Sync + 'static) {
        self.reloading.0.get_or_init(|| Box::new(reload));
    }

    /// Reads the settings of this service anew. Nothing where there are none. May block.
    pub fn reload(&self) -> Option<Result<Reloaded, String>> {
        self.reloading.0.get().map(|reload| reload())
    }

    /// Has the pool work with other options, but for `max_sessions`, `min_idle` and `database`, which
    /// stay.
    pub fn change_pool_options(&self, options: &pool::Options) {
        self.pool.change_options(options);
    }
}
