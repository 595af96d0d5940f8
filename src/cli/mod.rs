//! The command line: what is asked for, by whom, and how it ended.
//!
//! ```text
//! arguments --clap--> Command --> one function per verb --> standard output, exit code
//! ```
//!
//! Answers go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed,
//! 2 usage, 3 refused, 4 integrity, 75 try again. No secret is taken from the command line.

mod audit;
mod demo;
mod failure;
mod init;
mod output;
mod passphrase;
mod sample;
mod serve;
mod tenant;
mod token;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::admin::Admin;
use crate::audit::{Actor, Attempt, Log, Outcome, RequestId};
use crate::auth::Auth;
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::store::DataDir;
use crate::telemetry;
use crate::vault::TenantCredentialVault;

use failure::Failure;
use output::Output;
use passphrase::PassphraseSource;

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
struct Common {
    /// Where everything is kept
    #[arg(long, global = true, env = "TENANTRY_DATA_DIR", default_value = "tenantry-data")]
    #[arg(value_name = "DIR")]
    data_dir: PathBuf,
    /// Settings; tenantry.toml in this directory is read when it is there
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseSource,
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
    Stdio(serve::StdioArguments),
    /// Import and show tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Make and revoke the tokens that clients log in with
    #[command(subcommand)]
    Token(token::Command),
    /// Read the audit log
    #[command(subcommand)]
    Audit(audit::Command),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let environment = passphrase::take_from_environment();
    let cli = Cli::parse();
    let output = Output::new(cli.common.json);
    let result =
        Settings::load(cli.common.config.as_deref()).map_err(Failure::from).and_then(|settings| {
            telemetry::start(settings.log.level.into(), settings.log.format);
            let context = Context { common: cli.common, settings, output, environment };
            match cli.command {
                Command::Init => init::run(&context),
                Command::Demo(arguments) => demo::run(&context, &arguments),
                Command::Serve(arguments) => serve::serve(&context, &arguments),
                Command::Stdio(arguments) => serve::stdio(&context, &arguments),
                Command::Tenant(command) => tenant::run(&context, command),
                Command::Token(command) => token::run(&context, command),
                Command::Audit(command) => audit::run(&context, command),
            }
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What every verb needs.
struct Context {
    common: Common,
    settings: Settings,
    output: Output,
    /// A passphrase that came by the environment, already removed from there.
    environment: Option<secrecy::SecretString>,
}

/// An unsealed vault with its audit log.
struct Opened {
    vault: Arc<TenantCredentialVault>,
    log: Log,
    clock: Arc<dyn Clock>,
}

impl Context {
    fn data_dir(&self) -> &Path {
        &self.common.data_dir
    }

    /// Unseals the vault with the passphrase of whatever source is given.
    fn open(&self) -> Result<Opened, Failure> {
        let directory = DataDir::open(self.data_dir())?;
        let passphrase = self.common.passphrase.read(self.environment.as_ref())?;
        open(directory, &passphrase, &self.settings)
    }

    /// Unseals the vault for an operator's action.
    fn admin(&self) -> Result<Admin, Failure> {
        Ok(self.open()?.admin())
    }
}

impl Opened {
    fn admin(&self) -> Admin {
        let auth = Auth::new(Arc::clone(&self.vault), self.log.clone(), Arc::clone(&self.clock));
        Admin::new(Arc::clone(&self.vault), Arc::new(auth), self.log.clone(), operator())
    }
}

/// Unseals the vault in `directory`; the attempt is recorded, whether it succeeds or not.
fn open(
    directory: DataDir,
    passphrase: &secrecy::SecretString,
    settings: &Settings,
) -> Result<Opened, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Log::open(&directory.audit_path(), Arc::clone(&clock))?;
    let pending = log.begin(Attempt {
        request_id: RequestId::random(),
        actor: operator(),
        peer: None,
        action: "vault.unseal",
        tenant: None,
    });
    let options = settings.vault_options();
    let vault = TenantCredentialVault::unseal(directory, passphrase, options, Arc::clone(&clock));
    let code = vault.as_ref().err().map(crate::vault::Error::code);
    pending.complete_blocking(Outcome { code, ..Outcome::default() })?;
    Ok(Opened { vault: Arc::new(vault?), log, clock })
}

/// Who is at the command line, for the audit log.
fn operator() -> Actor {
    #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
    let name = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER"));
    let uid = std::fs::metadata("/proc/self").map(|process| process.uid());
    // The name is what the environment says, the number is what the system knows.
    let name: String = name.unwrap_or_default().escape_default().take(64).collect();
    let uid = uid.map_or_else(|_| "?".to_owned(), |uid| uid.to_string());
    Actor::Operator { name: format!("{name}({uid})") }
}
