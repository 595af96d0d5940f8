//! Settings that change while the service runs.

use super::{About, Admin, Error};
use crate::manager::Reloaded;

impl Admin {
    /// Has the service read its settings anew. What cannot change while it runs is named.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`]: one of them is wrong, and nothing has changed. [`Error::InvalidCommand`]
    /// where no service runs.
    pub fn reload(&self) -> Result<Reloaded, Error> {
        let outcome = |reloaded: &Reloaded| {
            let names = reloaded.applied.join(" ");
            (Some(reloaded.applied.len() as u64), Some(names).filter(|names| !names.is_empty()))
        };
        self.change("settings.reload", &About::default(), outcome, || {
            let reloaded = self.manager.as_ref().and_then(|manager| manager.reload());
            let reloaded = reloaded.ok_or(Error::InvalidCommand("no service runs here"))?;
            reloaded.map_err(Error::Settings)
        })
    }
}
