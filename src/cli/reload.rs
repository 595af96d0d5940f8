//! Settings that change while the service runs: SIGHUP, `tenantry reload`.
//!
//! ```text
//! tenantry.toml, environment --all valid?--> endpoint, pool, log   what has changed takes effect
//!                                  \--no--> nothing changes, and the reason is told
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::systemd::Supervisor;
use super::{Context, Failure};
use crate::admin::{Command, Reloaded};
use crate::config::Settings;
use crate::manager::TenantMcpManager;
use crate::{config, http, telemetry};

/// What a running service needs to change its settings.
pub(super) struct Reloader {
    /// As given with `--config`.
    file: Option<PathBuf>,
    directory: PathBuf,
    /// Where calls are listened for.
    address: SocketAddr,
    /// Those in effect.
    settings: Mutex<Settings>,
    endpoint: http::Handle,
    manager: Weak<TenantMcpManager>,
    supervisor: Arc<Supervisor>,
}

impl Reloader {
    /// For the service of `manager`, which listens at `address` and was started with the settings of
    /// `context`.
    pub(super) fn new(
        context: &Context,
        directory: &Path,
        address: SocketAddr,
        endpoint: &http::Handle,
        manager: &Arc<TenantMcpManager>,
    ) -> Self {
        Self {
            file: context.common.config.clone(),
            directory: directory.to_owned(),
            address,
            settings: Mutex::new(context.settings.clone()),
            endpoint: endpoint.clone(),
            manager: Arc::downgrade(manager),
            supervisor: Arc::clone(&context.supervisor),
        }
    }

    /// Reads the settings, and has those take effect that can; says in the log what became of that.
    ///
    /// # Errors
    ///
    /// Which setting is wrong, and why: nothing has changed.
    pub(super) fn reload(&self) -> Result<Reloaded, String> {
        self.supervisor.reloading();
        let reloaded = self.apply().map_err(|error| error.to_string());
        match &reloaded {
            Ok(Reloaded { applied, needs_restart }) => tracing::info!(
                changed = applied.join(" "),
                needs_a_restart = needs_restart.join(" "),
                "the settings were read again"
            ),
            Err(reason) => tracing::error!(%reason, "the settings stay as they are"),
        }
        self.supervisor.ready();
        reloaded
    }

    fn apply(&self) -> Result<Reloaded, Failure> {
        // Held to the end: one after the other.
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Settings::load(self.file.as_deref())?;
        let reloaded = settings.reloaded(&new);
        // Which may be what --listen said, and not what the settings say.
        reloaded.settings.check_listen(self.address)?;
        let has_changed = |section: &str| {
            reloaded.applied.iter().any(|name| name.split('.').next() == Some(section))
        };
        // What may fail comes before anything is changed. Also when no setting changed: files that
        // they name may have.
        let manager = self.manager.upgrade();
        let auth = reloaded.settings.auth_options()?;
        let prepared = manager.as_ref().map(|manager| manager.auth().prepare(auth)).transpose();
        let prepared = prepared.map_err(config::Error::from)?;
        self.endpoint.reload(reloaded.settings.http_options())?;
        if let (Some(manager), Some(prepared)) = (&manager, prepared) {
            manager.auth().adopt(prepared);
        }
        if has_changed("log") {
            telemetry::set_level(reloaded.settings.log.level.into());
        }
        if has_changed("pool")
            && let Some(manager) = &manager
        {
            manager.change_pool_options(&reloaded.settings.pool_options(&self.directory));
        }
        *settings = reloaded.settings;
        let (applied, needs_restart) = (reloaded.applied, reloaded.needs_restart);
        Ok(Reloaded { applied, needs_restart })
    }
}

/// `tenantry reload`
pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let answer = context.operate(&Command::Reload, &[])?;
    context.output.answer(&answer, || {
        let names = |member: &str| -> Vec<&str> {
            answer[member].as_array().into_iter().flatten().filter_map(|it| it.as_str()).collect()
        };
        let (applied, needs_restart) = (names("applied"), names("needs_restart"));
        let mut lines = Vec::new();
        if !applied.is_empty() {
            lines.push(format!("changed: {}", applied.join(", ")));
        }
        if !needs_restart.is_empty() {
            lines.push(format!("needs a restart: {}", needs_restart.join(", ")));
        }
        if lines.is_empty() {
            lines.push("no setting has changed".to_owned());
        }
        lines.join("\n")
    });
    Ok(())
}
