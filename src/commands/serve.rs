//! `martd serve`, the life of the daemon: log, configuration, sockets, rights, build, run, drain.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use landlock::RulesetStatus;
use rustix::process::{Resource, Rlimit};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{CommandError, start};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::duck;
use crate::engine::{Engine, StartError};
use crate::events::Events;
use crate::flag;
use crate::http::{self, App, Server, Tokens};
use crate::legacy::LegacyFile;
use crate::limits::{self, Shares};
use crate::listen::{self, SocketFiles, Sockets};
use crate::mart_dir::MartDir;
use crate::marts::build;
use crate::metrics::Metrics;
use crate::pg;
use crate::pin::Budget;
use crate::refresh::{BeginWith, Refresh};
use crate::sandbox;
use crate::service;
use crate::settings::{Fallback, Landlock, SCHEMAS, ServeArgs};
use crate::signal::{self, Ask};
use crate::state::StateDir;

/// What `serve` needs.
#[derive(Debug, Args)]
pub struct ServeCommand {
    /// A directory with Parquet files, or with a directory `mart` of them; or a DuckDB file. In the place
    /// of --parquet-dir or --duckdb-path
    path: Option<PathBuf>,

    #[command(flatten)]
    settings: ServeArgs,
}

pub(super) fn run_command(command: ServeCommand) -> Result<ExitCode, CommandError> {
    let mut settings = command.settings;
    if let Some(path) = command.path {
        name(&mut settings, path).map_err(CommandError::usage)?;
    }
    run(settings)
}

/// Lets a path take the place of the flag that its kind has.
fn name(settings: &mut ServeArgs, path: PathBuf) -> Result<(), String> {
    const WANTED: &str = "name a directory of Parquet files, or a DuckDB file";
    let shown = path.display();
    if path.is_dir() {
        settings.source.dir = Some(MartDir::either(path));
        return Ok(());
    }
    let mut head = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(12).read_to_end(&mut head))
        .map_err(|error| format!("{shown} cannot be served: {error}; {WANTED}"))?;
    if !head.ends_with(b"DUCK") && path.extension().is_none_or(|extension| extension != "duckdb") {
        let advice = match path.parent().filter(|_| head.starts_with(b"PAR1")) {
            Some(dir) if dir.as_os_str().is_empty() => {
                "name its directory: martd serve .".to_owned()
            }
            Some(dir) => format!("name its directory: martd serve {}", dir.display()),
            None => WANTED.to_owned(),
        };
        return Err(format!("{shown} is not a DuckDB file; {advice}"));
    }
    if settings.fallback == Fallback::Off {
        return Err(format!(
            "{shown} is not served with --fallback (MARTD_FALLBACK) off; leave that out"
        ));
    }
    // A stock dbt project has its tables in `main`.
    let schemas = || SCHEMAS.into_iter().chain(["main"]).map(str::to_owned).collect();
    settings.schemas.get_or_insert_with(schemas);
    settings.duckdb_path = Some(path);
    Ok(())
}

pub(super) fn run(args: ServeArgs) -> Result<ExitCode, CommandError> {
    start::log().map_err(CommandError::usage)?;
    start::warn_of_unknown_variables();
    let config = args.into_config().map_err(CommandError::usage)?;
    match serve_until_stopped(config) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ StartError::TimeZone(_)) => Err(CommandError::usage(error.to_string())),
        Err(StartError::Other(reason)) => {
            error!("{reason}");
            Ok(ExitCode::FAILURE)
        }
    }
}

impl From<String> for StartError {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

fn serve_until_stopped(config: Config) -> Result<(), StartError> {
    raise_descriptor_limit()?;
    let sockets =
        Sockets::open(&config.listen, config.admin_listen.as_ref(), config.pg.listen.as_ref())?;
    let legacy = config.legacy.clone().map(LegacyFile::new);
    let state = state_dir(&config)?;
    let builders = config.refresh.intake.builders().map_err(|error| error.to_string())?;
    // Rights are given up before any thread is there but the spawner, for they inherit that.
    confine(&config, &builders, &sockets.files)
        .map_err(|error| format!("rights cannot be given up: {error}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("threads cannot be had: {error}"))?;
    runtime.block_on(serve(config, builders, BeginWith { state, legacy }, sockets))
}

fn state_dir(config: &Config) -> Result<Option<Arc<StateDir>>, String> {
    let Some(dir) = &config.refresh.intake.state_dir else { return Ok(None) };
    let state = StateDir::open(dir, config.refresh.keep_builds).map_err(|error| {
        format!("{}: {} cannot be used: {error}", flag::of("MARTD_STATE_DIR"), dir.display())
    });
    state.map(|state| Some(Arc::new(state)))
}

fn confine(
    config: &Config,
    builders: &build::BuilderSettings,
    files: &SocketFiles,
) -> Result<(), String> {
    let null = Path::new("/dev/null"); // where builders' messages go
    let writable = [
        config.refresh.intake.state_dir.as_deref(),
        Some(&*builders.scratch),
        builders.budget.dir(),
    ];
    let writable = writable.into_iter().flatten().chain([null]);
    let status =
        sandbox::forbid_writes(writable, files.directories()).map_err(|error| error.to_string())?;
    if status == RulesetStatus::NotEnforced {
        go_on_without_landlock(config.landlock, config.http.scoping.is_some())?;
        warn!("this kernel has no Landlock: rights are not given up");
    }
    Ok(())
}

/// Whether to serve with a layer less. Where rows are scoped, somebody must say so.
fn go_on_without_landlock(landlock: Landlock, is_scoped: bool) -> Result<(), String> {
    match landlock {
        Landlock::Auto if is_scoped => Err(
            "this kernel has no Landlock, the last layer of defence where rows are scoped; set \
             --landlock (MARTD_LANDLOCK) to optional to go without"
                .to_owned(),
        ),
        Landlock::Auto | Landlock::Optional => Ok(()),
    }
}

/// Tells what there is, what memory martd may take, and whether there is so much.
fn tell_limits(config: &Config, builders: &build::BuilderSettings) {
    let shares = Shares {
        engine: config.engine.process.memory_bytes,
        pins: config.refresh.intake.pin_bytes,
        tables: builders.budget.limit(),
        answers: config.http.cache_bytes,
        waiting_rows: config.pg.waiting_bytes,
        catalogs: config.pg.catalogs_bytes,
    };
    let (memory, processors) = (limits::memory(), limits::processors());
    let size = |bytes| ByteSize::b(bytes).to_string();
    info!(
        memory = size(memory.value),
        memory_source = memory.source,
        processors = processors.value,
        processors_source = processors.source,
        "limits"
    );
    let builder_count = builders.builders as u64 + u64::from(config.legacy.is_some());
    let (at_most, available) = (limits::most_bytes(shares), memory.value);
    info!(
        pins = size(shares.pins),
        tables = size(shares.tables),
        engine = size(shares.engine),
        answers = size(shares.answers),
        waiting_rows = size(shares.waiting_rows),
        catalogs = size(shares.catalogs),
        at_most = size(at_most),
        builders = size(builder_count * limits::builder_bytes()),
        "memory, with two engines while one is replaced; builders come on top while files are read"
    );
    if at_most > available {
        warn!(
            at_most = size(at_most),
            available = size(available),
            "martd may take more memory than there is: lower MARTD_MEMORY, MARTD_TABLE_MEMORY, \
             MARTD_PIN_MEMORY or MARTD_CACHE"
        );
    }
}

/// A mart takes a descriptor for each version that somebody reads, so the customary soft limit of 1,024
/// is too low for a thousand marts. What nothing here uses is `select`, the reason for that limit.
fn raise_descriptor_limit() -> Result<(), String> {
    /// Sockets of an engine's slots, a builder's, and some marts.
    const LEAST: u64 = 256;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if let Some(most) = limit.maximum.filter(|most| *most < LEAST) {
        return Err(format!(
            "martd may open {most} files and needs {LEAST} at least: raise its limit of descriptors \
             (LimitNOFILE=, ulimit -n)"
        ));
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of descriptors stays at {:?}", limit.current);
    }
    Ok(())
}

async fn serve(
    config: Config,
    builders: build::BuilderSettings,
    begin_with: BeginWith,
    sockets: Sockets,
) -> Result<(), StartError> {
    let Sockets { all, admin, postgres, files } = sockets;
    let mut asks = signal::listen().map_err(|error| format!("signals: {error}"))?;
    tell_limits(&config, &builders);
    let engine = Engine::start(config.engine, builders.spawner.clone(), &Handle::current())?;
    let catalog = Catalog::default();
    info!(
        address = listen::addresses(&all),
        admin = (!admin.is_empty()).then(|| listen::addresses(&admin)),
        postgres = (!postgres.is_empty()).then(|| listen::addresses(&postgres)),
        directory = %config.refresh.intake.dir.path().display(),
        version = env!("CARGO_PKG_VERSION"),
        duckdb = duck::version(),
        "serving"
    );
    if begin_with.legacy.is_none() {
        start::warn_of_no_marts(&config.refresh.intake.dir);
    }
    if config.tokens.is_none() {
        start::warn_of_open_sockets(&all);
    }
    if let Some(scoping) = &config.http.scoping {
        let column = scoping.column.clone();
        tokio::spawn(start::warn_of_unused_scope(catalog.clone(), column));
    }
    let pins = Budget::new(config.refresh.intake.pin_bytes);
    let metrics = Metrics::new(pins, Arc::clone(&builders.budget), http::problems());
    let events = Events::default();
    let (watched, told, counted) = (catalog.clone(), events.clone(), metrics.clone());
    let answering = engine.clone();
    let refresh =
        Refresh::start(config.refresh, builders, answering, watched, told, begin_with, counted)
            .map_err(|error| format!("threads cannot be had: {error}"))?;
    let app =
        App::new(config.http, catalog.clone(), events, engine, config.tokens.clone(), metrics);
    let unusable = |error| format!("a socket cannot be used: {error}");
    let server = Server::new(all, app.clone()).map_err(unusable)?;
    let admin = Server::admin(admin, app.clone()).map_err(unusable)?;
    let certificate = config.pg.tls.clone();
    let postgres = pg::PgServer::new(postgres, app.clone(), config.pg).map_err(unusable)?;
    let (stop, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let server = tokio::spawn(server.run(stop.clone().cancelled_owned()));
    let postgres = tokio::spawn(postgres.run(stop.clone().cancelled_owned()));
    // Probes answer to the very end.
    let admin = tokio::spawn(admin.run(stop_admin.clone().cancelled_owned()));
    service::ready();
    tokio::spawn(service::report(catalog));
    service::watch_over(app.clone(), refresh.pulse(), Handle::current())
        .map_err(|error| format!("threads cannot be had: {error}"))?;

    live(&mut asks, &refresh, config.tokens.as_ref(), certificate.as_ref()).await;

    info!("stopping");
    service::stopping();
    app.drain();
    let drained = async {
        sleep(config.drain_delay).await;
        stop.cancel();
        let served = async { tokio::join!(server, postgres) };
        if timeout(config.drain, served).await.is_err() {
            warn!("requests are still in flight: cancelling their queries");
            app.cancel_queries();
        }
        stop_admin.cancel();
        let _ = timeout(ADMIN_DRAIN, admin).await;
    };
    let again = async { while !matches!(asks.recv().await, Some(Ask::Stop) | None) {} };
    tokio::select! {
        () = drained => Ok(()),
        () = again => {
            warn!("told to stop again: stopping at once");
            files.remove();
            std::process::exit(1);
        }
    }
}

/// For probes in flight; their clients ask again anyway.
const ADMIN_DRAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// Does what signals ask for, until one asks for the end.
async fn live(
    asks: &mut UnboundedReceiver<Ask>,
    refresh: &Refresh,
    tokens: Option<&Tokens>,
    certificate: Option<&pg::Tls>,
) {
    while let Some(ask) = asks.recv().await {
        match ask {
            Ask::Reload => {
                service::reloading();
                refresh.reload();
                if let Some(tokens) = tokens {
                    tokens.reload();
                }
                if let Some(certificate) = certificate {
                    certificate.reload();
                }
                service::ready();
            }
            Ask::Stop => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scoped_rows_need_all_layers_or_a_setting() {
        assert!(go_on_without_landlock(Landlock::Auto, true).is_err());
        assert!(go_on_without_landlock(Landlock::Auto, false).is_ok());
        assert!(go_on_without_landlock(Landlock::Optional, true).is_ok());
    }
}
