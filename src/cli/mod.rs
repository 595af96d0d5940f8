//! The command line: what is asked for, by whom, and how it ended.
//!
//! ```text
//! arguments --clap--> Command --> one function per verb --> standard output, exit code
//! ```
//!
//! Answers go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed,
//! 2 usage, 3 refused, 4 integrity, 5 stopped and calls were cut, 6 needs attention, 75 try again,
//! 130 stopped at once.
//! No secret is taken from the command line.

mod audit;
mod backup;
mod certificate;
mod client_config;
mod demo;
mod descriptors;
mod doctor;
mod failure;
mod fsck;
mod import;
mod init;
mod key;
mod operator;
mod output;
mod passphrase;
mod place;
mod quota;
mod reload;
mod sample;
mod serve;
mod stdio;
mod systemd;
mod tenant;
mod token;
mod vault;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::audit::{Actor, Log};
use crate::auth::Auth;
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::memory::{self, SecretText};
use crate::store::DataDir;
use crate::telemetry;
use crate::vault::{TenantCredentialVault, Unlock, Unsealing};

use failure::Failure;
use key::KeySource;
use output::{Output, complain, line};
use systemd::Supervisor;

/// Where everything is kept unless somebody says otherwise.
const DEFAULT_DATA_DIR: &str = "tenantry-data";

/// Gives every tenant of a SaaS its own isolated MCP server over its own database.
#[derive(Debug, Parser)]
#[command(name = "tenantry", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
struct Common {
    /// Where everything is kept
    #[arg(long, global = true, env = "TENANTRY_DATA_DIR", default_value = DEFAULT_DATA_DIR)]
    #[arg(value_name = "DIR")]
    data_dir: PathBuf,
    /// Settings; tenantry.toml in this directory is read when it is there
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    /// Say more: where a verb is done, settings at their defaults, request ids
    #[arg(long, global = true)]
    verbose: bool,
    #[command(flatten)]
    key: KeySource,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the data directory, protected by a passphrase
    Init,
    /// Show the whole job on sample data in ./tenantry-demo
    Demo(demo::Arguments),
    /// Serve MCP over HTTP
    Serve(serve::ServeArguments),
    /// Serve one tenant's MCP on standard input and output, for desktop clients
    Stdio(stdio::Arguments),
    /// Print the configuration of an MCP client
    ClientConfig(client_config::Arguments),
    /// Load the keys of a service that runs sealed, or of one tenant
    Unseal(vault::UnsealArguments),
    /// Destroy the keys in a running service's memory, or those of one tenant
    Seal(vault::SealArguments),
    /// Show what there is and how it is; needs no key
    Status,
    /// Add, list and remove ways to unseal
    #[command(subcommand)]
    Slot(vault::SlotCommand),
    /// Change a passphrase
    #[command(subcommand)]
    Passphrase(vault::PassphraseCommand),
    /// Change the root key
    #[command(subcommand)]
    Root(vault::RootCommand),
    /// Change a tenant's key
    #[command(subcommand)]
    TenantKey(vault::TenantKeyCommand),
    /// Finish what a change of keys began, now
    Reseal,
    /// Have the running service read its settings again
    Reload,
    /// Back up, try backups, restore
    #[command(subcommand)]
    Backup(backup::Command),
    /// Import, show and remove tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Show and change what tenants may use
    #[command(subcommand)]
    Quota(quota::Command),
    /// Make and revoke the tokens that clients log in with
    #[command(subcommand)]
    Token(token::Command),
    /// Make and revoke the tokens of those who operate the service over its admin API
    #[command(subcommand)]
    Operator(operator::Command),
    /// Look at settings, limits, vault and tenants' databases, and say what needs attention
    Doctor(doctor::Arguments),
    /// Check everything that is stored, and rescue what can be
    Fsck(fsck::Arguments),
    /// Read the audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Check what was signed when a tenant was removed
    #[command(subcommand)]
    Certificate(certificate::Command),
    /// Print what a shell completes this program's arguments with
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    // Before anything secret is read, and before there is a second thread.
    let hardened = memory::harden();
    memory::return_freed();
    let environment = passphrase::take_from_environment();
    let supervisor = Arc::new(Supervisor::take_from_environment());
    let Cli { common, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(common.json);
    let hardened = hardened.map_err(|error| {
        let message = "this process cannot be kept from being read by others";
        Failure::io(message, &error)
    });
    let result = hardened.and_then(|()| {
        let loaded = Settings::load(common.config.as_deref());
        let mut context = Context {
            common,
            settings: Settings::default(),
            output,
            environment,
            supervisor,
            stopping: None,
            said_where: Cell::new(false),
        };
        match loaded {
            Ok(settings) => context.settings = settings,
            // A service has its own, and has to be sealed whatever the file says by now.
            Err(error) if !command.needs_settings() && context.is_served() => {
                complain(&format!("warning: the settings are not read: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        let log = &context.settings.log;
        telemetry::start(log.level.into(), log.format);
        match command {
            Command::Init => init::run(&context),
            Command::Demo(arguments) => demo::run(&mut context, &arguments),
            Command::Serve(arguments) => serve::serve(&mut context, &arguments),
            Command::Stdio(arguments) => stdio::run(&mut context, &arguments),
            Command::ClientConfig(arguments) => client_config::run(&context, &arguments),
            Command::Unseal(arguments) => vault::unseal(&context, arguments),
            Command::Seal(arguments) => vault::seal(&context, arguments),
            Command::Status => vault::status(&context),
            Command::Slot(command) => vault::slot(&context, command),
            Command::Passphrase(command) => vault::passphrase(&mut context, command),
            Command::Root(command) => vault::root(&context, &command),
            Command::TenantKey(command) => vault::tenant_key(&context, command),
            Command::Reseal => vault::reseal(&context),
            Command::Reload => reload::run(&context),
            Command::Backup(command) => backup::run(&mut context, command),
            Command::Tenant(command) => tenant::run(&context, command),
            Command::Quota(command) => quota::run(&context, command),
            Command::Token(command) => token::run(&context, command),
            Command::Operator(command) => operator::run(&context, command),
            Command::Doctor(arguments) => doctor::run(&context, &arguments),
            Command::Fsck(arguments) => fsck::run(&context, &arguments),
            Command::Audit(command) => audit::run(&context, command),
            Command::Certificate(command) => certificate::run(&context, command),
            Command::Completions { shell } => {
                // Not at once to standard output, which may be closed.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "tenantry", &mut script);
                line(String::from_utf8_lossy(&script).trim_end());
                Ok(())
            }
        }
    });
    // Before what is said last, and before the process ends.
    telemetry::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Says what is wrong with the arguments, or what was asked for about them.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || !std::env::args_os().any(|argument| argument == "--json") {
        error.exit();
    }
    let text = error.to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let failure = Failure::usage(message.trim_start_matches("error: "));
    Output::new(true).failure(&failure);
    ExitCode::from(failure.exit_code())
}

impl Command {
    /// Whether it is about this process's settings, also while a service runs.
    fn needs_settings(&self) -> bool {
        matches!(
            self,
            Self::ClientConfig(_)
                | Self::Demo(_)
                | Self::Doctor(_)
                | Self::Reload
                | Self::Serve(_)
                | Self::Stdio(_)
        )
    }
}

/// What every verb needs.
struct Context {
    common: Common,
    settings: Settings,
    output: Output,
    /// A passphrase that came by the environment, already removed from there. What runs for long
    /// lets go of it.
    environment: Option<SecretText>,
    /// Who started this process, if it is to be told how it is.
    supervisor: Arc<Supervisor>,
    /// Cancelled by a signal, once somebody wants to know.
    stopping: Option<CancellationToken>,
    /// Whether it was said where verbs are done.
    said_where: Cell<bool>,
}

/// A vault with its audit log.
struct Opened {
    vault: Arc<TenantCredentialVault>,
    log: Log,
    clock: Arc<dyn Clock>,
}

impl Context {
    fn data_dir(&self) -> &Path {
        &self.common.data_dir
    }

    /// Whether no signal has come that asks to end.
    fn goes_on(&self) -> bool {
        self.stopping.as_ref().is_none_or(|stopping| !stopping.is_cancelled())
    }

    /// Unseals the vault with the key of whatever source is given.
    fn open(&self) -> Result<Opened, Failure> {
        let directory = DataDir::open(self.data_dir())?;
        let key = self.key()?;
        Opened::unsealed(directory, &key.unlock()?, &self.settings)
    }

    /// The same, where older copies are taken for what there is.
    fn open_accepting_rollback(&self) -> Result<Opened, Failure> {
        let directory = DataDir::open(self.data_dir())?;
        let key = self.key()?;
        let opened = Opened::sealed(directory, &self.settings)?;
        tell(opened.admin().unseal_accepting_rollback(&key.unlock()?)?.as_ref());
        warn_if_unlocked();
        Ok(opened)
    }

    /// Opens the vault without a key.
    fn open_sealed(&self) -> Result<Opened, Failure> {
        Opened::sealed(DataDir::open(self.data_dir())?, &self.settings)
    }
}

impl Opened {
    /// The vault in `directory`, still sealed.
    fn sealed(directory: DataDir, settings: &Settings) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = Log::open(&directory.audit_path(), Arc::clone(&clock))?;
        let options = settings.vault_options();
        let vault = TenantCredentialVault::open(directory, options, Arc::clone(&clock))?;
        Ok(Self { vault: Arc::new(vault), log, clock })
    }

    /// Unseals the vault in `directory`; the attempt is recorded, whether it succeeds or not.
    fn unsealed(directory: DataDir, unlock: &Unlock, settings: &Settings) -> Result<Self, Failure> {
        let opened = Self::sealed(directory, settings)?;
        tell(opened.admin().unseal(unlock)?.as_ref());
        warn_if_unlocked();
        Ok(opened)
    }

    fn admin(&self) -> Admin {
        let auth = Auth::new(Arc::clone(&self.vault), self.log.clone(), Arc::clone(&self.clock));
        Admin::new(Arc::clone(&self.vault), Arc::new(auth), self.log.clone(), operator())
    }
}

/// Says what an unsealing found, a line each.
fn tell(unsealing: Option<&Unsealing>) {
    let Some(Unsealing { repairs, accepted, .. }) = unsealing else { return };
    for sentence in repairs.iter().map(ToString::to_string).chain(accepted.iter().cloned()) {
        complain(&sentence);
    }
}

/// Says once that keys may be swapped. They are in memory now, so it is known.
fn warn_if_unlocked() {
    let memory::Status { unlocked, .. } = memory::status();
    if unlocked > 0 {
        tracing::warn!(
            bytes = unlocked,
            "secrets may be written to swap: raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=)"
        );
    }
}

/// Who is at the command line, for the audit log.
fn operator() -> Actor {
    #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    // The name is what the environment says, the number is what the system knows.
    let name = name.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "uid".to_owned());
    let name: String = name.escape_default().take(64).collect();
    let uid = rustix::process::getuid().as_raw();
    Actor::Operator { name: format!("{name}({uid})") }
}
