//! What the program uses: the [`settings`](crate::settings) that were typed, checked once, and what depends
//! on the machine filled in.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use crate::engine;
use crate::flag;
use crate::http::{self, Tokens};
use crate::ledger::Period;
use crate::limits::{self, LEAST_ENGINE_BYTES, Shares};
use crate::listen::Address;
use crate::mart_dir::MartDir;
use crate::pg;
use crate::refresh;
use crate::settings::{Count, Fallback, Landlock, SCHEMAS, ServeArgs, SourceArgs, Switch};
use crate::sql_gate::is_system_schema;

/// A place in the queue costs a request's text; clients of a dashboard come several at once.
const LEAST_QUEUE: usize = 32;

/// What the program uses.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Address,
    /// Where to listen for probes and metrics, if anywhere.
    pub admin_listen: Option<Address>,
    /// The PostgreSQL protocol.
    pub pg: pg::PgSettings,
    /// The DuckDB file to serve until the first mart has landed.
    pub legacy: Option<PathBuf>,
    /// The refresh thread's part.
    pub refresh: refresh::RefreshSettings,
    /// Whether a kernel without Landlock will do.
    pub landlock: Landlock,
    /// The processes that have DuckDB.
    pub engine: engine::EngineSettings,
    /// The tokens that are accepted; `None` when none is asked for.
    pub tokens: Option<Tokens>,
    /// The server's part.
    pub http: http::HttpSettings,
    /// Time after SIGTERM in which requests are still taken.
    pub drain_delay: Duration,
    /// Time for requests in flight to finish after that.
    pub drain: Duration,
}

/// A setting that cannot be used: which, its value, and what to do.
fn wrong(variable: &str, problem: impl Display) -> String {
    format!("{}: {problem}", flag::of(variable))
}

impl SourceArgs {
    /// Fills in what depends on the machine.
    ///
    /// # Errors
    /// When martd cannot find itself.
    pub(crate) fn into_intake(self, shares: Shares) -> Result<refresh::Intake, String> {
        if let Some(dir) = self.table_dir.as_ref().filter(|dir| !dir.is_dir()) {
            let problem = format!("{} is not a directory; create it", dir.display());
            return Err(wrong("MARTD_TABLE_DIR", problem));
        }
        Ok(refresh::Intake {
            dir: self.dir.unwrap_or_else(|| MartDir::new(self.parquet_dir)),
            policy: self.publish,
            unverified: self.unverified,
            pin_bytes: self.pin_memory.unwrap_or(shares.pins),
            program: program()?,
            scratch_dir: self.scratch_dir,
            table_bytes: self.table_memory.unwrap_or(shares.tables),
            table_dir: self.table_dir,
            state_dir: self.state_dir,
        })
    }
}

impl ServeArgs {
    /// Checks the settings and fills in what depends on the machine.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn into_config(self) -> Result<Config, String> {
        let processors = usize::try_from(limits::processors().value).unwrap_or(usize::MAX);
        let shares = Shares::of(limits::memory().value, self.pg.is_served());
        let memory = self.memory.unwrap_or(shares.engine);
        if memory < LEAST_ENGINE_BYTES {
            let problem =
                format!("{} is too little; give DuckDB at least 64 MiB", ByteSize::b(memory));
            return Err(wrong("MARTD_MEMORY", problem));
        }
        let schemas = self.schemas.unwrap_or_else(|| SCHEMAS.map(str::to_owned).to_vec());
        let schemas = names("MARTD_SCHEMAS", &schemas)?;
        if let Some(schema) = schemas.iter().find(|schema| !can_hold_marts(schema)) {
            let problem = format!(
                "{schema:?} cannot be a schema of marts; name one that is not DuckDB's own, without dots and \
                 quotation marks"
            );
            return Err(wrong("MARTD_SCHEMAS", problem));
        }
        let require = names("MARTD_REQUIRE", &self.require)?;
        let queries = self.queries.map_or(processors, Count::get);
        let threads = self.threads.map_or(processors, Count::get);
        let unscoped = names("MARTD_UNSCOPED", &self.unscoped)?;
        let hosts = names("MARTD_HOSTS", &self.hosts)?;
        if let Some(host) = hosts.iter().find(|host| host.contains(['/', ':'])) {
            let problem = format!("{host:?} is not a name alone; write it as app.example.org");
            return Err(wrong("MARTD_HOSTS", problem));
        }
        let origins = names("MARTD_CORS_ORIGINS", &self.cors_origins)?;
        if let Some(origin) = origins.iter().find(|origin| !is_origin(origin)) {
            let problem =
                format!("{origin:?} is not an origin; write it as https://app.example.org");
            return Err(wrong("MARTD_CORS_ORIGINS", problem));
        }
        let scoping = match self.scope_column {
            Some(column) => Some(engine::Scoping { column, unscoped }),
            None if unscoped.is_empty() => None,
            None => {
                let problem = format!("has no use without {}", flag::of("MARTD_SCOPE_COLUMN"));
                return Err(wrong("MARTD_UNSCOPED", problem));
            }
        };
        let tokens = self
            .token_file
            .map(|file| Tokens::load(&file))
            .transpose()
            .map_err(|problem| wrong("MARTD_TOKEN_FILE", problem))?;
        let pg = self.pg.into_settings(shares);
        let pg = pg.map_err(|(setting, problem)| wrong(setting, problem))?;
        let max_age = max_age(self.max_age_warn, self.max_age_error)?;
        let cache_bytes = self.cache.unwrap_or(shares.answers);

        let intake = self.source.into_intake(shares)?;
        let table_dir = intake.table_dir.clone().or_else(|| intake.state_dir.clone());

        Ok(Config {
            listen: self.listen,
            admin_listen: self.admin_listen,
            pg,
            landlock: self.landlock,
            drain_delay: self.drain_delay,
            drain: self.drain,
            legacy: self.duckdb_path.filter(|_| self.fallback == Fallback::On),
            refresh: refresh::RefreshSettings {
                intake,
                watch: self.watch,
                retain_for: self.retain,
                retain_count: self.retain_count,
                keep_builds: self.keep_builds.get(),
                schemas: schemas.clone(),
            },
            engine: engine::EngineSettings {
                program: program()?,
                queries,
                process: engine::ProcessSettings {
                    memory_bytes: memory,
                    data_bytes: memory + shares.catalogs + engine::overhead_bytes(queries, threads),
                    threads,
                    time_zone: self.timezone.clone(),
                    schemas,
                    scoping: scoping.clone(),
                    table_dir,
                    postgres: shares.catalogs > 0,
                },
            },
            tokens,
            http: http::HttpSettings {
                scoping,
                time_zone: self.timezone,
                cache_bytes,
                require,
                max_age,
                queries,
                queue: self.queue.unwrap_or_else(|| (2 * queries).max(LEAST_QUEUE)),
                catch_up: self.catch_up,
                query_timeout: self.query_timeout,
                max_rows: self.max_rows,
                max_result_bytes: self.max_result,
                max_body_bytes: self.max_body,
                max_connections: self.max_connections.get(),
                timeouts: http::Timeouts {
                    header: self.header_timeout,
                    body: self.body_timeout,
                    stall: self.stall_timeout,
                },
                log_sql: self.log_sql == Switch::On,
                doors: http::Doors { hosts, origins },
            },
        })
    }
}

/// Builders and engines are this program, too.
fn program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("martd cannot find its own program: {error}"))
}

/// In dbt's units, the smallest of which is the minute.
fn max_age(warn: Option<Duration>, error: Option<Duration>) -> Result<http::Criteria, String> {
    let period = |setting, time: Option<Duration>| {
        let Some(time) = time else { return Ok(None) };
        let minutes = time.as_secs() / 60;
        if minutes == 0 || Duration::from_secs(minutes * 60) != time {
            let problem =
                format!("{time:?} is not a number of whole minutes; write it as 90m or 25h");
            return Err(wrong(setting, problem));
        }
        Ok(Some(Period::of_minutes(minutes)))
    };
    let criteria = http::Criteria {
        warn_after: period("MARTD_MAX_AGE_WARN", warn)?,
        error_after: period("MARTD_MAX_AGE_ERROR", error)?,
    };
    if let Some((warn, error)) = warn.zip(error).filter(|(warn, error)| warn > error) {
        let problem =
            format!("{error:?} is less than {} is: {warn:?}", flag::of("MARTD_MAX_AGE_WARN"));
        return Err(wrong("MARTD_MAX_AGE_ERROR", problem));
    }
    Ok(criteria)
}

/// A scheme and an authority, and nothing after them.
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && !authority.is_empty() && !authority.contains('/')
    })
}

/// Whether clients can name marts by a schema as they write it.
fn can_hold_marts(schema: &str) -> bool {
    !is_system_schema(schema) && !schema.contains(['.', '"'])
}

/// The names of a list, without the spaces around commas.
fn names(setting: &'static str, list: &[String]) -> Result<Vec<String>, String> {
    let names: Vec<String> = list.iter().map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        let list = list.join(",");
        let problem = format!("{list:?} has an empty name; separate names by single commas");
        return Err(wrong(setting, problem));
    }
    Ok(names)
}
