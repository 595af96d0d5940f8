//! Where a verb is executed: in the service that has the data directory, or here when there is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::import::TenantFiles;
use super::key::{Key, Surroundings};
use super::output::complain;
use super::{Context, Failure, Opened, operator, tell, warn_if_unlocked};
use crate::admin::{self, Admin, Command, Import, MAX_LIMIT, Progress};
use crate::api;
use crate::audit::Actor;
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::store::{self, DataDir};

pub(super) enum Place {
    Here(DataDir),
    Service,
}

/// Where commands are executed, one after the other.
pub(super) struct Workplace<'a> {
    context: &'a Context,
    /// The vault here, opened with the first key that is needed; none where a service has it.
    admin: Option<Admin>,
    bar: Bar,
}

impl Workplace<'_> {
    /// Executes `command`, and answers the JSON that describes what became of it. Here, the vault is
    /// opened with the command's own key, or with one that is read now, and what a rotation of keys
    /// leaves to be done is done before this returns.
    pub(super) fn execute(
        &self,
        command: &Command,
        secrets: &[SecretText],
    ) -> Result<Value, Failure> {
        let context = self.context;
        let Some(admin) = &self.admin else {
            let mut show = |progress| self.bar.show(progress);
            let (path, name) = (context.data_dir(), login_name());
            return Ok(api::call(path, &name, command, secrets, &mut show)?);
        };
        if matches!(command, Command::Seal | Command::Unseal { accept_rollback: false, .. }) {
            let message = "no service runs on this data directory: its keys are in no memory";
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
        if matches!(command, Command::Reload) {
            let message = "no service runs on this data directory: the next one reads the settings";
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
        if admin.is_sealed() && !command.is_for_sealed() {
            let unlock = match command.unlock(secrets) {
                Some(unlock) => unlock?,
                None => context.key()?.unlock()?,
            };
            tell(admin.unseal(&unlock)?.as_ref());
        }
        let mut show = |progress| {
            self.bar.show(progress);
            context.goes_on()
        };
        let mut answer = admin.execute(command, secrets, &mut show)?;
        if matches!(command, Command::RootRotate { .. } | Command::TenantKeyRotate { .. }) {
            answer["reseal"] = admin.execute(&Command::Reseal, &[], &mut show)?;
        }
        Ok(answer)
    }

    /// Imports the tenants of `files`.
    pub(super) fn import(&self, files: TenantFiles, import: Import) -> Result<Value, Failure> {
        let context = self.context;
        let Some(admin) = &self.admin else {
            let mut show = |progress| self.bar.show(progress);
            let (path, name) = (context.data_dir(), login_name());
            let documents = files.into_documents();
            return Ok(api::import(path, &name, import, documents, &mut show)?);
        };
        if admin.is_sealed() {
            tell(admin.unseal(&context.key()?.unlock()?)?.as_ref());
            warn_if_unlocked();
        }
        let read = |at: usize| files.read(at);
        let mut show = |progress| {
            self.bar.show(progress);
            true
        };
        let imported = admin.take_in(files.candidates(), &read, import, &mut show)?;
        Ok(admin::describe_imported(&imported))
    }
}

impl Context {
    /// Executes `command`, as [`Workplace::execute`] does.
    pub(super) fn operate(
        &self,
        command: &Command,
        secrets: &[SecretText],
    ) -> Result<Value, Failure> {
        self.workplace()?.execute(command, secrets)
    }

    /// All of a listing, page by page: `command` gives the command for the page behind a cursor.
    pub(super) fn list(
        &self,
        listing: &str,
        command: impl Fn(Option<String>, Option<u32>) -> Command,
    ) -> Result<Vec<Value>, Failure> {
        let workplace = self.workplace()?;
        let (mut items, mut cursor) = (Vec::new(), None);
        loop {
            let mut page = workplace.execute(&command(cursor, Some(MAX_LIMIT)), &[])?;
            if let Value::Array(page) = page[listing].take() {
                items.extend(page);
            }
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// Where commands are executed now; `--verbose` says it, once.
    pub(super) fn workplace(&self) -> Result<Workplace<'_>, Failure> {
        let admin = match self.place()? {
            Place::Service => {
                self.say_where("done by the running service");
                None
            }
            Place::Here(directory) => {
                self.say_where("done here: no service runs on the data directory");
                let databases = self.settings.pool_options(self.data_dir()).database;
                let admin = Opened::sealed(directory, &self.settings)?.admin();
                Some(admin.with_databases(databases))
            }
        };
        Ok(Workplace { context: self, admin, bar: Bar::default() })
    }

    fn say_where(&self, text: &str) {
        if self.common.verbose && !self.said_where.replace(true) {
            complain(&format!("({text})"));
        }
    }

    /// Reads a key that the vault is opened with, unless a command could not be executed anyway.
    pub(super) fn proof(&self) -> Result<Key, Failure> {
        drop(self.place()?);
        self.key()
    }

    /// Reads a key that the vault is opened with.
    pub(super) fn key(&self) -> Result<Key, Failure> {
        self.common.key.read(self.surroundings())
    }

    pub(super) fn surroundings(&self) -> Surroundings<'_> {
        let environment = self.environment.as_ref();
        Surroundings { environment, key_command: self.settings.vault.key_command.as_deref() }
    }

    /// Whether a service has the data directory.
    pub(super) fn is_served(&self) -> bool {
        matches!(self.place(), Ok(Place::Service))
    }

    pub(super) fn place(&self) -> Result<Place, Failure> {
        match DataDir::open(self.data_dir()) {
            Ok(directory) => Ok(Place::Here(directory)),
            Err(store::Error::InUse { .. }) if api::is_present(self.data_dir()) => {
                Ok(Place::Service)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The operator's name without the number, which the service learns from the kernel.
pub(super) fn login_name() -> String {
    let Actor::Operator { name } = operator() else { return String::new() };
    name.rsplit_once('(').map_or(name.clone(), |(name, _)| name.to_owned())
}

/// What is done sooner needs no bar.
const BAR_DELAY: Duration = Duration::from_millis(500);

/// A progress bar that appears when it takes long. On a terminal only.
#[derive(Default)]
pub(super) struct Bar(std::cell::OnceCell<ProgressBar>);

impl Bar {
    pub(super) fn show(&self, progress: Progress) {
        let bar = self.0.get_or_init(|| {
            let bar = ProgressBar::hidden();
            let style = "{wide_bar} {pos}/{len}, {eta} left; safe to interrupt";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        if bar.is_hidden() && bar.elapsed() > BAR_DELAY {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.0.get() {
            bar.finish_and_clear();
        }
    }
}

/// A copy of a secret of this process.
#[expect(clippy::disallowed_methods, reason = "from one locked buffer into another")]
pub(super) fn copy(secret: &SecretText) -> SecretText {
    SecretText::from(secret.expose_secret())
}
