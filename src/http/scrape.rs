//! `GET /metrics`: what was counted, and what is true at this moment, for Prometheus.

use std::fmt;
use std::fs;

use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::accept;
use super::access::Sizes;
use super::body::{self, BoxBody};
use super::freshness::{self, FreshnessStatus};
use super::problem::Problem;
use super::{App, probes};
use crate::catalog::{Source, State};
use crate::duck;
use crate::engine::StartReason;
use crate::ledger::NodeKind;
use crate::watch::WatchMode;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers in the format that the scraper likes better; in Prometheus's own without a word.
pub(super) fn answer(
    app: &App,
    state: &State,
    sizes: Sizes<'_>,
    headers: &HeaderMap,
) -> Result<Response<BoxBody>, Problem> {
    let mut registry = Registry::default();
    app.metrics.register(&mut registry);
    registry.register_collector(Box::new(families(app, state, sizes)));
    let mut page = String::new();
    text::encode(&mut page, &registry).map_err(Problem::internal)?;
    let (page, content_type) = if accept::prefers(headers, OPEN_METRICS, TEXT) {
        (page, OPEN_METRICS)
    } else {
        (prometheus_text(&page), TEXT)
    };
    let mut response = Response::new(body::full(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// OpenMetrics names a counter without its suffix, has a type for information, and an end.
/// Prometheus's older text format has none of that; the samples are the same.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = "";
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            help = line; // its name depends on the type, which comes next
            continue;
        }
        let Some(typed) = line.strip_prefix("# TYPE ") else {
            if line != "# EOF" {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        };
        let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            other => ("", other),
        };
        let says = help.strip_prefix("# HELP ").and_then(|help| help.strip_prefix(name));
        let says = says.unwrap_or_default();
        text.push_str(&format!("# HELP {name}{suffix}{says}\n# TYPE {name}{suffix} {kind}\n"));
    }
    text
}

/// What is read off the moment: each name with its values, by label where there is one.
#[derive(Debug)]
struct MetricFamilies(Vec<MetricFamily>);

struct MetricFamily {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    values: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl fmt::Debug for MetricFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricFamily").field("name", &self.name).finish_non_exhaustive()
    }
}

impl MetricFamilies {
    fn add(&mut self, name: &'static str, help: &'static str, value: impl Into<Option<f64>>) {
        let values = value.into().map(|value| (Vec::new(), value)).into_iter().collect();
        self.0.push(MetricFamily { name, help, kind: MetricType::Gauge, values });
    }

    fn add_count(&mut self, name: &'static str, help: &'static str, value: usize) {
        self.add(name, help, value as f64);
    }

    fn add_counter(&mut self, name: &'static str, help: &'static str, value: Option<f64>) {
        let values = value.map(|value| (Vec::new(), value)).into_iter().collect();
        self.0.push(MetricFamily { name, help, kind: MetricType::Counter, values });
    }

    fn add_each(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, f64)>,
    ) {
        let values = values.into_iter().map(|(name, value)| (vec![(label, name)], value)).collect();
        self.0.push(MetricFamily { name, help, kind: MetricType::Gauge, values });
    }
}

impl Collector for MetricFamilies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for MetricFamily { name, help, kind, values } in
            self.0.iter().filter(|family| !family.values.is_empty())
        {
            let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
            for (labels, value) in values {
                if labels.is_empty() {
                    encode(&mut metric, *kind, *value)?;
                } else {
                    encode(&mut metric.encode_family(labels)?, *kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(metric: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, _, f64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}

fn families(app: &App, state: &State, sizes: Sizes<'_>) -> MetricFamilies {
    let mut families = MetricFamilies(Vec::new());
    let version = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("duckdb_version", duck::version()),
    ];
    families.0.push(MetricFamily {
        name: "martd_build_info",
        help: "The version that runs, always 1",
        kind: MetricType::Gauge,
        values: vec![(version, 1.0)],
    });
    let ready = truth(probes::is_ready(app, state));
    families.add("martd_ready", "Whether /readyz says 200", ready);
    snapshot(&mut families, state);
    marts(&mut families, app, state, sizes);
    directory(&mut families, state);
    load(&mut families, app);
    process(&mut families, app);
    engine(&mut families, app);
    families
}

fn snapshot(families: &mut MetricFamilies, state: &State) {
    let snapshot = state.snapshot.as_deref();
    let generation = snapshot.map(|snapshot| snapshot.generation as f64);
    families.add("martd_snapshot_generation", "Grows with each published snapshot", generation);
    let sources = [Source::Parquet, Source::Duckdb];
    let sources = sources.map(|source| {
        let served = snapshot.is_some_and(|snapshot| snapshot.source == source);
        (source.name().to_owned(), truth(served))
    });
    let help = "What the current snapshot is made from: Parquet files, or the legacy file";
    families.add_each("martd_snapshot_source", help, "source", sources);
    let published = snapshot.map(|snapshot| seconds(snapshot.published_at));
    let help = "When the current snapshot was published";
    families.add("martd_snapshot_published_timestamp_seconds", help, published);
    let verified = snapshot.map(|snapshot| truth(snapshot.verified));
    let help = "Whether the ledger, where there is one, vouches for the current snapshot";
    families.add("martd_snapshot_verified", help, verified);
    let marts = snapshot.map_or(0, |snapshot| snapshot.marts.len());
    families.add_count("martd_marts", "Marts in the current snapshot", marts);
    let orphans =
        snapshot.map_or(0, |snapshot| snapshot.marts.values().filter(|mart| mart.orphan).count());
    families.add_count("martd_orphans", "Marts whose models are no longer in the project", orphans);
    let finished = snapshot.and_then(|snapshot| snapshot.ledger.as_ref());
    let help = "When the dbt build ended that is served";
    let finished = finished.map(|ledger| seconds(ledger.finished_at));
    families.add("martd_served_build_finished_timestamp_seconds", help, finished);

    let back = state.held_back();
    families.add("martd_build_held", "Whether a build is held back", truth(back.is_some()));
    let since = back.map(|held| seconds(held.since));
    families.add("martd_build_held_since_timestamp_seconds", "Since when it is held", since);
    let rollback = back.is_some_and(|held| held.hold.rollback.is_some());
    let help = "Whether an earlier build is served because somebody asked for it";
    families.add("martd_rolled_back", help, truth(rollback));
    let outstanding = back.iter().flat_map(|held| &held.hold.outstanding);
    let kinds = NodeKind::ALL.map(|kind| {
        let count = outstanding.clone().filter(|node| node.kind() == kind).count();
        (kind.name().to_owned(), count as f64)
    });
    let help = "Nodes that failed, were skipped or not tested, and have not succeeded since";
    families.add_each("martd_outstanding_nodes", help, "kind", kinds);
    let pending = state.held.as_ref().map_or(0, |held| held.hold.pending.len());
    families.add_count("martd_pending_files", "Files that belong to no finished build", pending);
}

fn marts(families: &mut MetricFamilies, app: &App, state: &State, sizes: Sizes<'_>) {
    let (max_age, now) = (app.settings.max_age, Timestamp::now());
    let document = freshness::FreshnessDocument::of(state, max_age, sizes, now);
    let each = |value: &dyn Fn(&freshness::MartFreshness<'_>) -> Option<f64>| {
        let results = document.results().iter();
        let values = results.filter_map(|mart| Some((mart.name.to_owned(), value(mart)?)));
        values.collect::<Vec<_>>()
    };
    let help = "When the mart's file was last written";
    let refreshed = state.snapshot.iter().flat_map(|snapshot| &snapshot.marts);
    let refreshed = refreshed.map(|(name, mart)| (name.clone(), seconds(mart.version.modified())));
    families.add_each("martd_mart_last_refresh_timestamp_seconds", help, "mart", refreshed);
    let help = "What the mart's age is counted from: its loaded_at_field, or its file's time";
    let loaded = each(&|mart| mart.max_loaded_at.map(seconds));
    families.add_each("martd_mart_loaded_timestamp_seconds", help, "mart", loaded);
    let rows = each(&|mart| mart.rows.map(|rows| rows as f64));
    families.add_each("martd_mart_rows", "Rows of the mart", "mart", rows);
    let bytes = each(&|mart| mart.bytes.map(|bytes| bytes as f64));
    families.add_each("martd_mart_bytes", "Size of the mart's file", "mart", bytes);
    let help = "The mart against its freshness rule: 0 pass, 1 warn, 2 error; not for orphans";
    let status = each(&|mart| (!mart.orphan).then(|| severity(mart.status)));
    families.add_each("martd_mart_freshness_status", help, "mart", status);
    let help = "All marts against their freshness rules: 0 pass, 1 warn, 2 error";
    families.add("martd_freshness_status", help, severity(document.status()));
}

fn directory(families: &mut MetricFamilies, state: &State) {
    let help = "Files that will not be served; /v1/snapshot has the reasons";
    families.add_count("martd_rejected_files", help, state.rejected.len());
    let help = "Files that are not complete yet";
    families.add_count("martd_landing_files", help, state.landing.len());
    let readable = truth(state.directory.is_none());
    families.add("martd_directory_readable", "Whether the mart directory can be read", readable);
    let modes = [("inotify", WatchMode::Inotify), ("poll", WatchMode::Poll)];
    let modes = modes.map(|(name, mode)| (name.to_owned(), truth(state.watch == mode)));
    families.add_each("martd_watch_mode", "How changes are noticed", "mode", modes);
    let help = "Whether inotify was asked for and cannot be had";
    families.add("martd_watch_degraded", help, truth(state.watch_degraded.is_some()));
    let retained = state.retained.len();
    families.add_count("martd_snapshots_retained", "Replaced snapshots that can be read", retained);
    if let Some(mirror) = &state.mirror {
        let now = Timestamp::now();
        let help = "For how long the mart directory may have differed from what it mirrors; 0 when it is equal";
        let behind = mirror.seconds_behind(now);
        families.add("martd_mirror_behind_seconds", help, behind as f64);
        let help = "Objects that the mirror has not written yet";
        families.add("martd_mirror_objects_behind", help, mirror.behind.objects as f64);
        let help =
            "Whether the mirror fails, or has not been heard of; /v1/snapshot has the reason";
        families.add("martd_mirror_failing", help, truth(mirror.is_failing(now)));
    }
}

fn load(families: &mut MetricFamilies, app: &App) {
    let slots = &app.slots;
    let help = "Queries that may run at once, beside one of a client that has no other";
    families.add_count("martd_query_slots", help, slots.shared());
    families.add_count("martd_queries_in_flight", "Queries that hold a slot", slots.in_flight());
    families.add_count("martd_queries_waiting", "Queries that wait for a slot", slots.waiting());
    families.add_count(
        "martd_requests_behind",
        "Requests that wait for a snapshot that is not here yet",
        app.requests_behind(),
    );
    let (bytes, limit) = app.answers.bytes();
    families.add("martd_cache_bytes", "What cached answers take", bytes as f64);
    families.add("martd_cache_limit_bytes", "What they may take", limit as f64);
    let pins = &app.metrics.pins;
    families.add("martd_pins", "Versions of marts that are pinned", pins.pins() as f64);
    families.add("martd_pinned_bytes", "Memory that copies of marts take", pins.used() as f64);
    families.add("martd_pinned_limit_bytes", "Memory that they may take", pins.limit() as f64);
    let tables = &app.metrics.tables;
    let kinds = [("memory", tables.used()), ("disk", tables.on_disk())];
    let kinds = kinds.map(|(kind, bytes)| (kind.to_owned(), bytes as f64));
    families.add_each("martd_table_bytes", "What the tables of marts take", "kind", kinds);
    let help = "Memory that tables may take";
    families.add("martd_table_limit_bytes", help, tables.limit() as f64);
    let limit = app.settings.max_connections;
    families.add_count("martd_connections_limit", "Connections that may be open at once", limit);
}

/// The engine: the process that has DuckDB, and is replaced when it fails.
fn engine(families: &mut MetricFamilies, app: &App) {
    let status = app.engine.status();
    let starts = StartReason::ALL.map(|reason| {
        let count = status.starts.iter().find(|(known, _)| *known == reason);
        (vec![("reason", reason.name().to_owned())], count.map_or(0.0, |(_, count)| *count as f64))
    });
    families.0.push(MetricFamily {
        name: "martd_engine_starts",
        help: "Engines started, by what happened to the one before",
        kind: MetricType::Counter,
        values: starts.into(),
    });
    let help = "How long the engine that takes queries has been there";
    families.add("martd_engine_age_seconds", help, status.age.map(|age| age.as_secs_f64()));
    let help = "Memory in use by each engine: the one that takes queries, and one that ends";
    let engines = [("current", status.current), ("ending", status.ending)];
    let resident = engines
        .map(|(role, pid)| pid.and_then(|pid| Some((role.to_owned(), resident_bytes(pid)?))));
    let resident = resident.into_iter().flatten();
    families.add_each("martd_engine_resident_memory_bytes", help, "engine", resident);
    let help = "Statements that brought an engine down and are not run again for a while";
    families.add_count("martd_statements_quarantined", help, status.quarantined);
}

fn resident_bytes(pid: u32) -> Option<f64> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: f64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as f64)
}

/// What Prometheus's client libraries tell of their process, as far as /proc lets it be read.
fn process(families: &mut MetricFamilies, app: &App) {
    let started = seconds(app.metrics.started);
    families.add("process_start_time_seconds", "When the process started", started);
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        families.add_count("process_open_fds", "Open descriptors", entries.count() - 1);
    }
    let limit = crate::pin::descriptor_limit();
    families.add("process_max_fds", "Descriptors that may be open", limit as f64);
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok() else { return };
    // The second field is the program's name in parentheses, which may hold spaces.
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks);
    let help = "Processor time, of user and system together";
    families.add_counter("process_cpu_seconds", help, cpu);
    families.add("process_threads", "Threads", field(20));
    families.add("process_virtual_memory_bytes", "Size of the address space", field(23));
    let page = rustix::param::page_size() as f64;
    let resident = field(24).map(|pages| pages * page);
    families.add("process_resident_memory_bytes", "Memory in use", resident);
}

fn severity(status: FreshnessStatus) -> f64 {
    match status {
        FreshnessStatus::Pass => 0.0,
        FreshnessStatus::Warn => 1.0,
        FreshnessStatus::Error => 2.0,
    }
}

fn truth(truth: bool) -> f64 {
    f64::from(u8::from(truth))
}

fn seconds(time: Timestamp) -> f64 {
    time.as_nanosecond() as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_carry_their_suffix_in_prometheus_text() {
        let open_metrics = "# HELP a Of things.\n# TYPE a counter\na_total{b=\"# EOF\"} 1\n\
                            # HELP g Now.\n# TYPE g gauge\ng 2.0\n# EOF\n";
        let expected = "# HELP a_total Of things.\n# TYPE a_total counter\na_total{b=\"# EOF\"} 1\n\
                        # HELP g Now.\n# TYPE g gauge\ng 2.0\n";
        assert_eq!(prometheus_text(open_metrics), expected);
    }
}
