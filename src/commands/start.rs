//! What `serve` says before it serves: what is logged, and settings that are allowed and look wrong.

use std::env;
use std::io::IsTerminal as _;

use clap::CommandFactory as _;
use tracing::level_filters::LevelFilter;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use super::Cli;
use crate::catalog::Catalog;
use crate::flag;
use crate::listen::Socket;
use crate::mart_dir::MartDir;

/// Variables that begin like martd's and are not settings of this program: those of its clients and tests.
const OTHERS: [&str; 6] =
    ["MARTD_URL", "MARTD_TIMEOUT", "MARTD_RETRY", "MARTD_WAIT", "MARTD_BIN", "MARTD_TEST_FAULTS"];
/// Those that Kubernetes sets for a service named martd.
const OF_KUBERNETES: [&str; 2] = ["MARTD_SERVICE_", "MARTD_PORT"];

/// Starts the log: for people on a terminal, JSON for everything else.
///
/// # Errors
/// When `RUST_LOG` is wrong.
pub(super) fn log() -> Result<(), String> {
    let wanted = env::var_os("RUST_LOG").unwrap_or_default();
    let filter = filter(&wanted.to_string_lossy())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).with_span_list(false).init();
    }
    Ok(())
}

/// A word that is not a level would be a target, of which there is no such: nothing would be logged.
fn filter(wanted: &str) -> Result<EnvFilter, String> {
    const RIGHT: &str = "write off, error, warn, info, debug or trace, or levels of targets: \
                         info,martd::http=debug";
    let directives = wanted.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    for directive in directives.clone() {
        let is_level = directive.parse::<LevelFilter>().is_ok();
        if !is_level && (!directive.contains('=') || directive.parse::<Directive>().is_err()) {
            return Err(format!("RUST_LOG: {directive:?} is not a level; {RIGHT}"));
        }
    }
    // notify has a line for each folder that is deleted, object_store for each retry; what a mirror cannot
    // do it says itself.
    const USUAL: &str = "info,notify=warn,object_store=warn,rustls_platform_verifier=off";
    let usual = directives.clone().next().is_none();
    EnvFilter::try_new(if usual { USUAL } else { wanted })
        .map_err(|_| format!("RUST_LOG: {wanted:?} is wrong; {RIGHT}"))
}

/// Warns of variables that look like settings and are not.
pub(super) fn warn_of_unknown_variables() {
    let cli = Cli::command();
    let arguments = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    let known: Vec<_> = arguments.filter_map(|arg| arg.get_env()?.to_str()).collect();
    let variables = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for variable in variables.filter(|name| name.starts_with("MARTD_")) {
        let is_known = known.contains(&&*variable)
            || OTHERS.contains(&&*variable)
            || OF_KUBERNETES.iter().any(|prefix| variable.starts_with(prefix));
        if is_known {
            continue;
        }
        let distance = |name: &&&str| strsim::damerau_levenshtein(name, &variable);
        let similar = known.iter().min_by_key(distance).filter(|name| distance(name) <= 4);
        let hint = similar.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        warn!("{variable} is not a setting of martd{hint}");
    }
}

/// Warns when there is nothing to serve yet: the directory may be another one than was meant.
pub(super) fn warn_of_no_marts(dir: &MartDir) {
    let found = dir.open().and_then(|open| open.scan(|_| false, |_, _| {}));
    // One that cannot be read is told of as long as that is so.
    if found.is_ok_and(|found| found.candidates.is_empty() && found.unseen.is_empty()) {
        warn!(directory = %dir.path().display(), "there is no Parquet file yet; martd waits for the first");
    }
}

/// Warns when other machines may read everything.
pub(super) fn warn_of_open_sockets(sockets: &[Socket]) {
    for socket in sockets.iter().filter(|socket| socket.is_on_a_network()) {
        warn!(
            "whoever reaches {} may read every mart: set {}, or listen on 127.0.0.1",
            socket.address(),
            flag::of("MARTD_TOKEN_FILE"),
        );
    }
}

/// Warns when no mart of the first snapshot has the column that scopes rows.
pub(super) async fn warn_of_unused_scope(catalog: Catalog, column: String) {
    let mut changes = catalog.subscribe();
    loop {
        if let Some(snapshot) = &catalog.load().snapshot {
            let mut columns = snapshot.marts.values().flat_map(|mart| mart.columns());
            if !columns.any(|known| known.name.eq_ignore_ascii_case(&column)) {
                warn!("{}: no mart has a column {column}", flag::of("MARTD_SCOPE_COLUMN"));
            }
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
