//! Where a verb is executed: in the service that has the data directory, or here when there is none.

use indicatif::{ProgressBar, ProgressStyle};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::key::{Key, Surroundings};
use super::{Context, Failure, Opened, operator, tell};
use crate::admin::{Command, Progress};
use crate::audit::Actor;
use crate::control::{self, ClientError};
use crate::error::ErrorCode;
use crate::memory::SecretText;
use crate::store::{self, DataDir};

pub(super) enum Place {
    Here(DataDir),
    /// With the error of trying to have the directory here.
    Service(store::Error),
}

impl Context {
    /// Executes `command`, and answers the JSON that describes what became of it. Here, the vault is
    /// opened with the command's own key, or with one that is read now, and what a rotation of keys
    /// leaves to be done is done before this returns.
    pub(super) fn operate(
        &self,
        command: &Command,
        secrets: &[SecretText],
    ) -> Result<Value, Failure> {
        let bar = Bar::default();
        let directory = match self.place()? {
            Place::Here(directory) => directory,
            Place::Service(in_use) => {
                let mut show = |progress| bar.show(progress);
                let (path, name) = (self.data_dir(), login_name());
                let answer = control::call(path, &name, command, secrets, &mut show);
                return match answer {
                    Err(ClientError::Absent) => Err(in_use.into()),
                    answer => Ok(answer?),
                };
            }
        };
        if matches!(command, Command::Seal | Command::Unseal { accept_rollback: false, .. }) {
            let message = "no service runs on this data directory: its keys are in no memory";
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
        if matches!(command, Command::Reload) {
            let message = "no service runs on this data directory: the next one reads the settings";
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
        let databases = self.settings.pool_options(self.data_dir()).database;
        let admin = Opened::sealed(directory, &self.settings)?.admin().with_databases(databases);
        if !command.is_for_sealed() {
            let unlock = match command.unlock(secrets) {
                Some(unlock) => unlock?,
                None => self.key()?.unlock()?,
            };
            tell(admin.unseal(&unlock)?.as_ref());
        }
        let mut show = |progress| {
            bar.show(progress);
            self.goes_on()
        };
        let mut answer = admin.execute(command, secrets, &mut show)?;
        if matches!(command, Command::RootRotate { .. } | Command::TenantKeyRotate { .. }) {
            answer["reseal"] = admin.execute(&Command::Reseal, &[], &mut show)?;
        }
        Ok(answer)
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
        matches!(self.place(), Ok(Place::Service(_)))
    }

    pub(super) fn place(&self) -> Result<Place, Failure> {
        match DataDir::open(self.data_dir()) {
            Ok(directory) => Ok(Place::Here(directory)),
            Err(error @ store::Error::InUse { .. }) if control::is_present(self.data_dir()) => {
                Ok(Place::Service(error))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The operator's name without the number, which the service learns from the kernel.
fn login_name() -> String {
    let Actor::Operator { name } = operator() else { return String::new() };
    name.rsplit_once('(').map_or(name.clone(), |(name, _)| name.to_owned())
}

/// A progress bar that appears with the first progress. On a terminal only.
#[derive(Default)]
pub(super) struct Bar(std::cell::OnceCell<ProgressBar>);

impl Bar {
    pub(super) fn show(&self, progress: Progress) {
        let bar = self.0.get_or_init(|| {
            let bar = ProgressBar::new(progress.total);
            let style = "{bar:40} {pos}/{len} records, {eta} left; safe to interrupt";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar
        });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
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
