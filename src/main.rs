//! The life of the process: log, configuration, build, run, drain.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use landlock::RulesetStatus;
use martd::catalog::Catalog;
use martd::config::{Cli, Command, Config, ServeArgs, WaitArgs};
use martd::engine::Gate;
use martd::http::client::{BuildOutcome, Client};
use martd::http::{self, App};
use martd::legacy::LegacyFile;
use martd::metrics::Metrics;
use martd::pin::Budget;
use martd::refresh::Refresh;
use martd::sandbox;
use martd::signal::{self, Ask};
use martd::state::StateDir;
use martd::verify::child;
use rustix::process::{Resource, Rlimit};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

/// Bad settings, in the way of command lines.
const EXIT_USAGE: u8 = 2;
/// What was waited for has not happened in time.
const EXIT_UNKNOWN: u8 = 3;
fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Decode { depth, count, parent }) => child::main(depth, count, parent),
        Some(Command::DecodeLegacy(args)) => child::main_legacy(&args),
        Some(Command::Wait(args)) => wait(args),
        Some(Command::Serve(args)) => serve(*args),
        None => serve(cli.serve),
    }
}

fn serve(args: ServeArgs) -> ExitCode {
    start_log();
    let config = match args.into_config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("martd: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    raise_descriptor_limit();
    // Before any other thread is there, for they inherit it.
    let legacy = config.legacy.clone().map(LegacyFile::new);
    if let Err(error) = confine(&config, legacy.as_ref()) {
        error!("rights cannot be given up: {error}");
        return ExitCode::FAILURE;
    }
    // Blocking threads: the queries, and as many that wait for DuckDB to let go of theirs.
    let blocking = 2 * config.http.queries + 2;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(http::STACK_BYTES)
        .max_blocking_threads(blocking)
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(config, legacy)),
        Err(error) => Err(format!("threads cannot be had: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn wait(args: WaitArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("martd: threads cannot be had: {error}");
            return ExitCode::from(EXIT_UNKNOWN);
        }
    };
    let client = Client::new(args.server, args.token);
    match runtime.block_on(client.wait_for_build(&args.build, args.timeout.duration())) {
        BuildOutcome::Published(snapshot) => {
            println!("build {} is served in snapshot {snapshot}", args.build);
            ExitCode::SUCCESS
        }
        BuildOutcome::Held(reason) => {
            eprintln!("martd: build {} is held: {reason}", args.build);
            ExitCode::FAILURE
        }
        BuildOutcome::Unknown(word) => {
            eprintln!("martd: build {} is not served yet: {word}", args.build);
            ExitCode::from(EXIT_UNKNOWN)
        }
    }
}

fn confine(config: &Config, legacy: Option<&LegacyFile>) -> Result<(), String> {
    if let Some(dir) = &config.state_dir {
        std::fs::create_dir_all(dir).map_err(|error| {
            format!("MARTD_STATE_DIR: {} cannot be created: {error}", dir.display())
        })?;
    }
    let null = Path::new("/dev/null"); // where children's messages go
    let writable = [
        config.state_dir.as_deref(),
        config.refresh.engine.temp_dir.as_deref(),
        legacy.and_then(LegacyFile::links),
    ];
    let writable = writable.into_iter().flatten().chain([null]);
    let status = sandbox::forbid_writes(writable).map_err(|error| error.to_string())?;
    if status == RulesetStatus::NotEnforced {
        warn!("this kernel has no Landlock: the right to write is not given up");
    }
    sandbox::bound_data(config.data_bytes).map_err(|error| error.to_string())
}

/// A mart takes a descriptor for each version that somebody reads, so the customary soft limit of 1,024
/// is too low for a thousand marts. What nothing here uses is `select`, the reason for that limit.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of descriptors stays at {:?}", limit.current);
    }
}

async fn run(config: Config, legacy: Option<LegacyFile>) -> Result<(), String> {
    let mut asks = signal::listen().map_err(|error| format!("signals: {error}"))?;
    let gate = Gate::new().map_err(|error| format!("DuckDB: {error}"))?;
    let catalog = Catalog::default();
    let state = match &config.state_dir {
        Some(dir) => Some(StateDir::open(dir).map_err(|error| {
            format!("MARTD_STATE_DIR: {} cannot be used: {error}", dir.display())
        })?),
        None => None,
    };
    let listener = bind(config.listen).await?;
    info!(
        address = %listener.local_addr().unwrap_or(config.listen),
        directory = %config.refresh.dir.path().display(),
        version = env!("CARGO_PKG_VERSION"),
        duckdb = martd::engine::version(),
        "serving"
    );
    let metrics = Metrics::new(Budget::new(config.pin_bytes), http::problems());
    let refresh = Refresh::start(config.refresh, catalog.clone(), state, legacy, metrics.clone())
        .map_err(|error| format!("threads cannot be had: {error}"))?;
    let app = App::new(config.http, catalog, gate, config.tokens.clone(), metrics);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(http::serve(listener, app.clone(), async {
        let _ = stopped.await;
    }));
    while let Some(ask) = asks.recv().await {
        match ask {
            Ask::Reload => {
                refresh.mailbox().hint();
                if let Some(tokens) = &config.tokens {
                    tokens.reload();
                }
            }
            Ask::Stop => break,
        }
    }

    info!("stopping");
    app.drain();
    let _ = stop.send(());
    let drained = async {
        if timeout(config.drain, server).await.is_err() {
            warn!("requests are still in flight: interrupting their queries");
            app.interrupt_queries();
        }
    };
    let again = async { while !matches!(asks.recv().await, Some(Ask::Stop) | None) {} };
    tokio::select! {
        () = drained => {}
        () = again => {
            warn!("told to stop again: stopping at once");
            std::process::exit(1);
        }
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("MARTD_LISTEN: {address} cannot be listened on: {error}"))
}

/// For people on a terminal, JSON for everything else. `RUST_LOG` chooses what is logged.
fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).with_span_list(false).init();
    }
}
