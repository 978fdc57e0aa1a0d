//! What can be typed: each subcommand in a module of its own.

mod bootstrap;
mod check;
mod check_dbt;
mod freshness;
mod healthcheck;
mod init;
mod mirror;
mod publish;
mod query;
mod records;
mod rollback;
mod serve;
mod start;
mod table;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::engine;
use crate::http::client::{Client, ClientError, ServerAddress};
use crate::mart_dir::MartDir;
use crate::marts::build;
use crate::printable;
use crate::settings::ServeArgs;

/// What was asked for is not so: rejected, held, refused, not ready, or it failed.
const EXIT_NO: u8 = 1;
/// Bad settings, in the way of command lines.
const EXIT_USAGE: u8 = 2;
/// No martd answered, or not in time.
const EXIT_UNKNOWN: u8 = 3;
/// It is so, but worth a look.
const EXIT_WARN: u8 = 4;
/// It is recorded here, and not in the object store.
const EXIT_UNSENT: u8 = 5;

/// martd serves a directory of Parquet marts as one consistent database.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    args_conflicts_with_subcommands = true,
    max_term_width = 100,
    after_help = "Exit codes of all commands: 0 yes or done, 1 no or failed, 2 wrong usage, \
                  3 no answer in time, 4 a warning, 5 recorded here and not sent"
)]
pub struct Cli {
    /// What to do; `serve` when absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `serve`.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch PARQUET_DIR/mart and serve it (the default), or what PATH names
    Serve(Box<serve::ServeCommand>),
    /// Show what would be served and what is wrong, without a running martd
    ///
    /// Exit code: 1 when a file is rejected, a build is held, or nothing would be served, 4 when files
    /// are of no finished build; of a dbt project 1 when it lacks something, 4 when an option will go
    /// wrong
    Check(check::CheckArgs),
    /// Ask a running martd
    ///
    /// Exit code: 1 when it refuses the statement or fails, 3 when none answers
    Query(query::QueryArgs),
    /// Show how old each mart is
    ///
    /// Exit code: 0 pass, 4 warn, 1 error, 3 when no martd answers
    Freshness(freshness::FreshnessArgs),
    /// Vouch for marts, so that martd serves them together
    ///
    /// Exit code: 0 recorded, 1 a file was refused (the record says so and holds), or nothing could be
    /// recorded, 2 wrong usage, 4 there was nothing to vouch for, 5 with --to: what is recorded here is
    /// not all in the bucket, and --recorded goes on; with --wait as `wait`
    Publish(Box<publish::PublishArgs>),
    /// Serve an earlier build again, on every martd that has kept it, until --release; without BUILD,
    /// list the builds
    ///
    /// Exit code: 0 recorded, 1 it cannot be, 2 there is no such build; with --wait as `wait`
    Rollback(rollback::RollbackArgs),
    /// Wait until a dbt build is served
    ///
    /// Exit code: 0 it is, 1 it is held, 3 neither in time
    Wait(wait::WaitArgs),
    /// Keep PARQUET_DIR/mart equal to a prefix of an object store, beside `serve`
    ///
    /// Exit code: 0 ended by a signal; with --once 0 it is equal, 1 it is not, as standard error says; 2
    /// wrong usage
    Mirror(Box<mirror::MirrorArgs>),
    /// Ask /readyz, for containers
    ///
    /// Exit code: 0 ready, 1 not, or no answer
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Create PARQUET_DIR/mart and the folder of DUCKDB_PATH
    ///
    /// Exit code: 1 when that needs rights that this user does not have
    Bootstrap(bootstrap::BootstrapArgs),
    /// Print the patch with which a dbt project is served as whole builds
    ///
    /// Exit code: 0 it is all that is needed, 4 more is, as standard error says
    Init(init::InitArgs),
    /// Print what completes martd's commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The child process that has DuckDB; started by `serve` alone.
    #[command(name = engine::SUBCOMMAND, hide = true)]
    Engine {
        /// The process that starts it.
        front: u32,
    },
    /// The child process that builds tables; started by `serve` and `check` alone.
    #[command(name = build::SUBCOMMAND, hide = true)]
    Build {
        /// Its scratch folder.
        scratch: PathBuf,
    },
}

impl Cli {
    /// What was typed. Ends the process when it is wrong, or asks for help.
    pub fn typed() -> Self {
        let mut command = Self::command().mut_args(|arg| arg.hide_short_help(true));
        command = command.mut_subcommands(|command| command.mut_args(leave_out_of_short_help));
        let typed = command.try_get_matches_from_mut(std::env::args_os());
        let typed = typed.and_then(|mut typed| {
            Self::from_arg_matches_mut(&mut typed).map_err(|error| error.format(&mut command))
        });
        typed.unwrap_or_else(|error| name_variable(error).exit())
    }

    /// Does what was typed.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            None => serve::run(self.serve),
            Some(Command::Serve(command)) => serve::run_command(*command),
            Some(Command::Check(args)) => check::run(args),
            Some(Command::Query(args)) => asking(query::run(args)),
            Some(Command::Freshness(args)) => asking(freshness::run(args)),
            Some(Command::Publish(args)) => Ok(publish::run(*args)),
            Some(Command::Rollback(args)) => rollback::run(args),
            Some(Command::Wait(args)) => asking(wait::run(args)),
            Some(Command::Mirror(args)) => Ok(mirror::run(*args)),
            Some(Command::Healthcheck(args)) => asking(healthcheck::run(args)),
            Some(Command::Bootstrap(args)) => bootstrap::run(&args),
            Some(Command::Init(args)) => init::run(&args),
            Some(Command::Completions { shell }) => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "martd", &mut script);
                print(&String::from_utf8_lossy(&script));
                Ok(ExitCode::SUCCESS)
            }
            Some(Command::Engine { front }) => Ok(engine::main(front)),
            Some(Command::Build { scratch }) => Ok(build::main(&scratch)),
        };
        outcome.unwrap_or_else(CommandError::tell)
    }
}

/// `-h` has what most need; `--help` has the settings for the rest, too.
fn leave_out_of_short_help(arg: Arg) -> Arg {
    const SHORT: [&str; 8] = [
        "parquet_dir",
        "state_dir",
        "publish",
        "listen",
        "pg_listen",
        "token_file",
        "duckdb_path",
        "scope_column",
    ];
    let is_of_serve = arg.get_help_heading().is_some();
    let is_long = is_of_serve && !SHORT.contains(&arg.get_id().as_str());
    arg.hide_short_help(is_long)
}

/// Names the variable of a flag whose value is wrong, for it may stand there, or of what is missing.
fn name_variable(mut error: clap::Error) -> clap::Error {
    let mut cli = Cli::command();
    cli.build(); // flags cannot be written out before
    let both = |flag: &String| {
        let mut arguments = cli.get_subcommands().flat_map(clap::Command::get_arguments);
        let found = arguments.find(|argument| argument.to_string() == *flag);
        match found.and_then(Arg::get_env) {
            Some(variable) => format!("{flag} ({})", variable.to_string_lossy()),
            None => flag.clone(),
        }
    };
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => ContextValue::String(both(flag)),
        Some(ContextValue::Strings(flags)) => {
            ContextValue::Strings(flags.iter().map(both).collect())
        }
        _ => return error,
    };
    error.insert(ContextKind::InvalidArg, named);
    error
}

/// Which martd to ask.
#[derive(Debug, Args)]
struct ServerArgs {
    /// The running martd: HOST:PORT, or unix:PATH of its socket
    #[arg(long, env = "MARTD_SERVER", value_name = "ADDR", default_value = "127.0.0.1:8321")]
    server: ServerAddress,

    /// The token to ask with, where one is needed
    #[arg(long, env = "MARTD_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl ServerArgs {
    fn client(self) -> Client {
        Client::new(self.server, self.token)
    }
}

/// Why a command ends before its work is done: what to say, and the exit code.
struct CommandError {
    problem: String,
    code: u8,
}

impl CommandError {
    /// What was typed is wrong.
    fn usage(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), code: EXIT_USAGE }
    }

    fn tell(self) -> ExitCode {
        complain(&self.problem, self.code)
    }
}

impl From<String> for CommandError {
    fn from(problem: String) -> Self {
        Self { problem, code: EXIT_NO }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        Self { problem: error.to_string(), code: EXIT_UNKNOWN }
    }
}

/// Runs a command that asks a running martd.
fn asking<E: Into<CommandError>>(
    command: impl Future<Output = Result<ExitCode, E>>,
) -> Result<ExitCode, CommandError> {
    runtime()?.block_on(command).map_err(Into::into)
}

/// What a command waits with: on its own thread.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("threads cannot be had: {error}"))
}

/// Says that a mart directory cannot be read, and what to do: `advice`, unless more is known.
fn unreadable(dir: &MartDir, error: &std::io::Error, advice: &str) -> String {
    let advice = dir.advice().is_none().then(|| format!("; {advice}"));
    dir.unreadable(error) + &advice.unwrap_or_default()
}

fn complain(problem: &str, code: u8) -> ExitCode {
    eprintln!("martd: {}", printable::lines(problem));
    ExitCode::from(code)
}

/// Says what goes wrong although the command goes on.
fn warn(problem: &str) {
    eprintln!("martd: {}", printable::lines(problem));
}

/// Writes to standard output. Whoever reads it may have seen enough (`| head`).
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
