//! Which settings can change while the service runs.

use super::{HttpSettings, PoolSettings, Settings};

/// What becomes of settings that were read anew.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reloaded {
    /// Those that are in effect from now on.
    pub settings: Settings,
    /// The names of those that have changed.
    pub applied: Vec<String>,
    /// The names of those that will have, after a restart.
    pub needs_restart: Vec<String>,
}

impl Settings {
    /// What becomes of `new` where these settings are in effect.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Reloaded {
        let mut settings = self.clone();
        settings.log.level = new.log.level;
        // What a port speaks stays.
        let tls = match (&self.http.tls.certificate, &new.http.tls.certificate) {
            (Some(_), Some(_)) => new.http.tls.clone(),
            _ => self.http.tls.clone(),
        };
        settings.http = HttpSettings {
            listen: self.http.listen,
            tls,
            // Those that there are were begun under these.
            sessions: self.http.sessions,
            max_sessions: self.http.max_sessions,
            max_sessions_per_tenant: self.http.max_sessions_per_tenant,
            session_idle_seconds: self.http.session_idle_seconds,
            ..new.http.clone()
        };
        settings.auth = new.auth.clone();
        settings.pool = PoolSettings {
            max_sessions: self.pool.max_sessions,
            min_idle: self.pool.min_idle.clone(),
            ..new.pool.clone()
        };
        let applied = differences(self, &settings);
        let needs_restart = differences(&settings, new);
        Reloaded { settings, applied, needs_restart }
    }
}

/// The names of the settings that differ.
fn differences(one: &Settings, other: &Settings) -> Vec<String> {
    let values = |settings: &Settings| serde_json::to_value(settings).unwrap_or_default();
    let (one, other) = (values(one), values(other));
    let mut names = Vec::new();
    for (section, settings) in one.as_object().into_iter().flatten() {
        for (key, value) in settings.as_object().into_iter().flatten() {
            if *value != other[section][key] {
                names.push(format!("{section}.{key}"));
            }
        }
    }
    names
}
