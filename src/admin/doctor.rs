//! How each tenant's database is: asked now, of the database itself.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};

use super::{Admin, Error, Progress};
use crate::database::{self, Examined};
use crate::tenant::{Connection, TenantConfig, TenantId, TlsMode};
use crate::vault;

/// How many databases are asked at once.
const AT_ONCE: usize = 16;

impl Admin {
    /// Opens a session with the database of every tenant, or of one, and says what it found: a JSON
    /// object each, in order of id, with `needs_attention` where something does.
    ///
    /// As many tenants' secrets are in memory as are asked at once. Ends early, with those that were
    /// asked, when `progress` answers false.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCommand`] where no database can be reached from here, and those of reading
    /// tenants.
    pub fn examine_databases(
        &self,
        only: Option<&TenantId>,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Vec<Value>, Error> {
        let options = self.databases.as_ref();
        let options = options.ok_or(Error::InvalidCommand("no database is reached from here"))?;
        let ids: Vec<TenantId> = match only {
            Some(id) => vec![self.vault.tenant(id)?.config.id],
            None => self.vault.tenants()?.into_iter().map(|tenant| tenant.id).collect(),
        };
        let total = ids.len() as u64;
        let work = async {
            let asked = ids.into_iter().map(|id| self.examine_database(id, options));
            let mut answers = std::pin::pin!(stream::iter(asked).buffered(AT_ONCE));
            let mut found = Vec::new();
            while let Some(answer) = answers.next().await {
                found.push(answer);
                if !progress(Progress { done: found.len() as u64, total }) {
                    break;
                }
            }
            found
        };
        block_on(work)
    }

    async fn examine_database(&self, id: TenantId, options: &database::Options) -> Value {
        let vault = Arc::clone(&self.vault);
        let name = id.clone();
        let read = tokio::task::spawn_blocking(move || {
            let stored = vault.tenant(&name)?;
            // Of one that nobody serves the vault gives nothing out.
            let credentials = stored.enabled.then(|| vault.credentials(&name)).transpose()?;
            Ok::<_, vault::Error>((stored, credentials))
        });
        let (stored, credentials) = match read.await {
            Ok(Ok((stored, Some(credentials)))) => (stored, credentials),
            Ok(Ok((_, None))) => return unread(&id, "disabled, and not asked", false),
            Ok(Err(error)) => {
                // Sealed by an operator is how it should be.
                let is_sealed = matches!(error, vault::Error::TenantSealed(_));
                return unread(&id, &error.to_string(), !is_sealed);
            }
            Err(_) => return unread(&id, "the vault failed, see the log", true),
        };
        let examined = database::examine(&stored.config, &credentials, options).await;
        drop(credentials);
        describe(&stored.config, examined)
    }
}

/// Waits for `work`. A service has a runtime, whose thread for blocking work this is; the command line
/// has none.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        return Ok(runtime.block_on(work));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|_| Error::InvalidCommand("no runtime can be started"))?;
    Ok(runtime.block_on(work))
}

/// A tenant whose database is not asked.
fn unread(id: &TenantId, error: &str, needs_attention: bool) -> Value {
    json!({
        "tenant_id": id.as_str(),
        "engine": null,
        "reachable": null,
        "error": error,
        "tls": null,
        "version": null,
        "role_findings": [],
        "needs_attention": needs_attention,
    })
}

fn describe(config: &TenantConfig, examined: Result<Examined, database::Error>) -> Value {
    let tls = match &config.connection {
        // No mode falls back to less than it says.
        Connection::Postgres(target) if target.tls == TlsMode::Disable => Some("none"),
        Connection::Postgres(target) => Some(target.tls.as_str()),
        Connection::Sqlite { .. } => None,
    };
    let findings = examined
        .iter()
        .flat_map(|examined| &examined.excess)
        .map(|excess| json!({ "finding": excess.text, "privileged": excess.is_privileged }));
    let findings: Vec<Value> = findings.collect();
    let is_good = examined.is_ok() && findings.is_empty();
    json!({
        "tenant_id": config.id.as_str(),
        "engine": config.connection.engine(),
        "reachable": examined.is_ok(),
        "error": examined.as_ref().err().map(ToString::to_string),
        "tls": tls,
        "version": examined.ok().map(|examined| examined.version),
        "role_findings": findings,
        "needs_attention": !is_good,
    })
}
