//! What the user types ([`ServeArgs`]) and what the program uses ([`Config`]): two types, converted
//! once.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use crate::engine;
use crate::http::{self, Tokens};
use crate::ledger::Period;
use crate::limits::{self, LEAST_ENGINE_BYTES, Shares};
use crate::listen::Address;
use crate::mart_dir::MartDir;
use crate::pg;
use crate::publish::{Policy, Unverified};
use crate::refresh;
use crate::watch::WatchSetting;

/// A place in the queue costs a request's text; clients of a dashboard come several at once.
const LEAST_QUEUE: usize = 32;

/// Where dbt-duckdb puts marts whose schema is `mart`: with the macro that most projects have, and without.
pub(crate) const SCHEMAS: [&str; 2] = ["mart", "main_mart"];

/// The settings that decide what is served.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// What was named without a flag, in the place of `parquet_dir`.
    #[arg(skip)]
    pub(crate) dir: Option<MartDir>,

    /// Directory whose subdirectory `mart` holds the Parquet files
    #[arg(long, env = "PARQUET_DIR", value_name = "DIR", default_value = "data/parquet")]
    parquet_dir: PathBuf,

    /// What is published: every valid file, only builds that records vouch for, or the latter as soon
    /// as there is a record
    #[arg(long, env = "MARTD_PUBLISH", value_enum, default_value_t)]
    publish: Policy,

    /// What to do after a start when no record vouches for the files within 10 s
    #[arg(long, env = "MARTD_UNVERIFIED", value_enum, default_value_t)]
    unverified: Unverified,

    /// Memory for copies of files; those that it has no room for are held open instead [default: 1/8
    /// of the memory there is]
    #[arg(long, env = "MARTD_PIN_MEMORY", value_name = "SIZE")]
    pin_memory: Option<ByteSize>,

    /// Memory for the tables that are built from files [default: a quarter of the memory there is]
    #[arg(long, env = "MARTD_TABLE_MEMORY", value_name = "SIZE")]
    table_memory: Option<ByteSize>,

    /// Where tables go that MARTD_TABLE_MEMORY has no room for, as files without a name [default:
    /// MARTD_STATE_DIR, where it is given]
    #[arg(long, env = "MARTD_TABLE_DIR", value_name = "DIR")]
    table_dir: Option<PathBuf>,

    /// Where a few KiB are kept while a table is built [default: the first of MARTD_STATE_DIR, TMPDIR
    /// or /tmp, and /dev/shm that can be written]
    #[arg(long, env = "MARTD_SCRATCH_DIR", value_name = "DIR")]
    scratch_dir: Option<PathBuf>,

    /// Private directory in which the last published builds survive a restart; not kept when not given
    #[arg(long, env = "MARTD_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Settings as flags, with environment variables behind them.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// DuckDB file to serve until the first mart has landed
    #[arg(long, env = "DUCKDB_PATH", value_name = "FILE")]
    pub(crate) duckdb_path: Option<PathBuf>,

    /// Whether a kernel that cannot take rights from a process will do
    #[arg(long, env = "MARTD_LANDLOCK", value_enum, default_value_t)]
    landlock: Landlock,

    /// Whether DUCKDB_PATH is served as long as there is no mart
    #[arg(long, env = "MARTD_FALLBACK", value_enum, default_value_t)]
    pub(crate) fallback: Fallback,

    /// Where to serve: ADDRESS:PORT, or unix:PATH for a socket of its user and group. What systemd
    /// passes on takes its place
    #[arg(long, env = "MARTD_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8321")]
    listen: Address,

    /// Where to serve probes and metrics too, without a token; they answer there when all else is
    /// saturated
    #[arg(long, env = "MARTD_ADMIN_LISTEN", value_name = "ADDR")]
    admin_listen: Option<Address>,

    #[command(flatten)]
    pg: pg::PgArgs,

    /// How changes are noticed
    #[arg(long, env = "MARTD_WATCH", value_enum, default_value_t)]
    watch: WatchSetting,

    /// Marts that must be served before /readyz says so, separated by commas
    #[arg(long, env = "MARTD_REQUIRE", value_name = "NAMES", value_delimiter = ',')]
    require: Vec<String>,

    /// Age above which /v1/freshness warns of marts whose models have no rule of their own
    #[arg(long, env = "MARTD_MAX_AGE_WARN", value_name = "TIME")]
    max_age_warn: Option<Time>,

    /// Age above which they are an error
    #[arg(long, env = "MARTD_MAX_AGE_ERROR", value_name = "TIME")]
    max_age_error: Option<Time>,

    /// Schemas under which every mart can be named, separated by commas [default: mart,main_mart, and
    /// main for a DuckDB file that is named without a flag]
    #[arg(long, env = "MARTD_SCHEMAS", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) schemas: Option<Vec<String>>,

    /// Column that scopes rows: every query then carries Martd-Scope: COLUMN=VALUE and sees the rows
    /// with that value alone
    #[arg(long, env = "MARTD_SCOPE_COLUMN", value_name = "COLUMN")]
    scope_column: Option<String>,

    /// Marts without the scope column that anyone may read, separated by commas
    #[arg(long, env = "MARTD_UNSCOPED", value_name = "NAMES", value_delimiter = ',')]
    unscoped: Vec<String>,

    /// Names by which clients reach martd, separated by commas. A request on loopback that names
    /// another host is refused, and elsewhere too once this is set; addresses and localhost are always
    /// fine
    #[arg(long, env = "MARTD_HOSTS", value_name = "NAMES", value_delimiter = ',')]
    hosts: Vec<String>,

    /// Web pages that may ask from a browser, by scheme and authority, separated by commas
    #[arg(long, env = "MARTD_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    cors_origins: Vec<String>,

    /// File of bearer tokens, one to a line; without it no token is asked for
    #[arg(long, env = "MARTD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Memory for cached answers [default: 1/16 of the memory there is]; 0 turns the cache off
    #[arg(long, env = "MARTD_CACHE", value_name = "SIZE")]
    cache: Option<ByteSize>,

    /// Memory for DuckDB [default: a quarter of the memory there is]
    #[arg(long, env = "MARTD_MEMORY", value_name = "SIZE")]
    memory: Option<ByteSize>,

    /// Processors that queries use together, and one query where marts have 491,520 rows or more
    /// [default: those there are]
    #[arg(long, env = "MARTD_THREADS", value_name = "N")]
    threads: Option<Count>,

    /// Queries that run at once [default: the processors there are]
    #[arg(long, env = "MARTD_QUERIES", value_name = "N")]
    queries: Option<Count>,

    /// Queries that may wait for their turn, for a second at most [default: twice
    /// MARTD_QUERIES, and 32 at least]
    #[arg(long, env = "MARTD_QUEUE", value_name = "N")]
    queue: Option<usize>,

    /// Time that a query may take, unless it asks for less
    #[arg(long, env = "MARTD_QUERY_TIMEOUT", value_name = "TIME", default_value = "10s")]
    query_timeout: Time,

    /// The most rows that a request may ask for; it gets 10000 when it does not say
    #[arg(long, env = "MARTD_MAX_ROWS", value_name = "N", default_value_t = 10_000_000)]
    max_rows: u64,

    /// The largest answer
    #[arg(long, env = "MARTD_MAX_RESULT", value_name = "SIZE", default_value = "1GiB")]
    max_result: ByteSize,

    /// The largest request body
    #[arg(long, env = "MARTD_MAX_BODY", value_name = "SIZE", default_value = "256KiB")]
    max_body: ByteSize,

    /// Connections that are open at once
    #[arg(long, env = "MARTD_MAX_CONNECTIONS", value_name = "N", default_value = "512")]
    max_connections: Count,

    /// Session time zone
    #[arg(long, env = "MARTD_TIMEZONE", value_name = "ZONE", default_value = "UTC")]
    timezone: String,

    /// How long a replaced snapshot can still be read by its id
    #[arg(long, env = "MARTD_RETAIN", value_name = "TIME", default_value = "60s")]
    retain: Time,

    /// How many replaced snapshots can still be read
    #[arg(long, env = "MARTD_RETAIN_COUNT", value_name = "N", default_value_t = 4)]
    retain_count: usize,

    /// How many builds MARTD_STATE_DIR keeps for a rollback, the served one among them
    #[arg(long, env = "MARTD_KEEP_BUILDS", value_name = "N", default_value = "3")]
    keep_builds: Count,

    /// Time for a client to send a request's head, also on an idle connection
    #[arg(long, env = "MARTD_HEADER_TIMEOUT", value_name = "TIME", default_value = "30s")]
    header_timeout: Time,

    /// Time for a client to send a request's body
    #[arg(long, env = "MARTD_BODY_TIMEOUT", value_name = "TIME", default_value = "10s")]
    body_timeout: Time,

    /// Time for a client to take any bytes of its answer
    #[arg(long, env = "MARTD_STALL_TIMEOUT", value_name = "TIME", default_value = "30s")]
    stall_timeout: Time,

    /// Whether statements are logged as text, without the values of their parameters; by their hash
    /// alone when off
    #[arg(long, env = "MARTD_LOG_SQL", value_enum, default_value_t)]
    log_sql: Switch,

    /// Time after SIGTERM in which requests are still taken while /readyz says no, so that load
    /// balancers look elsewhere first
    #[arg(long, env = "MARTD_DRAIN_DELAY", value_name = "TIME", default_value = "500ms")]
    drain_delay: Time,

    /// Time for requests in flight to finish after that
    #[arg(long, env = "MARTD_DRAIN", value_name = "TIME", default_value = "20s")]
    drain: Time,
}

/// `MARTD_LANDLOCK`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Landlock {
    /// Rights are given up where the kernel has Landlock; with MARTD_SCOPE_COLUMN it must
    #[default]
    Auto,
    /// The same, but a kernel without it will do for scoped rows, too
    Optional,
}

/// `MARTD_FALLBACK`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fallback {
    /// The legacy file is served until the first mart has landed
    #[default]
    On,
    /// It never is: the migration is over
    Off,
}

/// On or off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Switch {
    #[default]
    Off,
    On,
}

/// A number of at least one.
type Count = std::num::NonZeroUsize;

/// A span of time as people write it: `500ms`, `10s`, `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(Duration);

impl Time {
    /// The span.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span: SignedDuration =
            text.parse().map_err(|_| format!("{text:?} is no time; write it as 500ms or 10s"))?;
        Duration::try_from(span).map(Self).map_err(|_| "a time cannot be negative".to_owned())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What the program uses.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Address,
    /// Where to listen for probes and metrics, if anywhere.
    pub admin_listen: Option<Address>,
    /// The PostgreSQL protocol.
    pub pg: pg::Settings,
    /// The DuckDB file to serve until the first mart has landed.
    pub legacy: Option<PathBuf>,
    /// The refresh thread's part.
    pub refresh: refresh::Settings,
    /// Whether a kernel without Landlock will do.
    pub landlock: Landlock,
    /// The processes that have DuckDB.
    pub engine: engine::EngineSettings,
    /// The tokens that are accepted; `None` when none is asked for.
    pub tokens: Option<Tokens>,
    /// The server's part.
    pub http: http::Settings,
    /// Time after SIGTERM in which requests are still taken.
    pub drain_delay: Duration,
    /// Time for requests in flight to finish after that.
    pub drain: Duration,
}

/// A setting that cannot be used. Names the setting and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct ConfigError {
    setting: &'static str,
    problem: String,
}

impl SourceArgs {
    /// Fills in what depends on the machine.
    ///
    /// # Errors
    /// When martd cannot find itself.
    pub(crate) fn into_intake(self, shares: Shares) -> Result<refresh::Intake, ConfigError> {
        if let Some(dir) = self.table_dir.as_ref().filter(|dir| !dir.is_dir()) {
            let problem = format!("{} is no directory; create it", dir.display());
            return Err(ConfigError { setting: "MARTD_TABLE_DIR", problem });
        }
        Ok(refresh::Intake {
            dir: self.dir.unwrap_or_else(|| MartDir::new(self.parquet_dir)),
            policy: self.publish,
            unverified: self.unverified,
            pin_bytes: self.pin_memory.map_or(shares.pins, |size| size.as_u64()),
            program: program()?,
            scratch_dir: self.scratch_dir,
            table_bytes: self.table_memory.map_or(shares.tables, |size| size.as_u64()),
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
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let processors = usize::try_from(limits::processors().value).unwrap_or(usize::MAX);
        let shares = Shares::of(limits::memory().value, self.pg.is_served());
        let memory = self.memory.map_or(shares.engine, |size| size.as_u64());
        if memory < LEAST_ENGINE_BYTES {
            let problem =
                format!("{} is too little; give DuckDB at least 64 MiB", ByteSize::b(memory));
            return Err(ConfigError { setting: "MARTD_MEMORY", problem });
        }
        let schemas = self.schemas.unwrap_or_else(|| SCHEMAS.map(str::to_owned).to_vec());
        check_names("MARTD_SCHEMAS", &schemas)?;
        if schemas.is_empty() {
            let problem = "name at least one schema".to_owned();
            return Err(ConfigError { setting: "MARTD_SCHEMAS", problem });
        }
        check_names("MARTD_REQUIRE", &self.require)?;
        let queries = self.queries.map_or(processors, Count::get);
        let threads = self.threads.map_or(processors, Count::get);
        check_names("MARTD_UNSCOPED", &self.unscoped)?;
        check_names("MARTD_HOSTS", &self.hosts)?;
        if let Some(origin) = self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            let problem = format!("{origin:?} is not an origin; write https://app.example.org");
            return Err(ConfigError { setting: "MARTD_CORS_ORIGINS", problem });
        }
        let scoping = match self.scope_column {
            Some(column) => Some(engine::Scoping { column, unscoped: self.unscoped }),
            None if self.unscoped.is_empty() => None,
            None => {
                let problem = "is of use with MARTD_SCOPE_COLUMN alone; set that too".to_owned();
                return Err(ConfigError { setting: "MARTD_UNSCOPED", problem });
            }
        };
        let tokens = self
            .token_file
            .map(|file| Tokens::load(&file))
            .transpose()
            .map_err(|problem| ConfigError { setting: "MARTD_TOKEN_FILE", problem })?;
        let pg = self.pg.into_settings(shares);
        let pg = pg.map_err(|(setting, problem)| ConfigError { setting, problem })?;
        let max_age = max_age(self.max_age_warn, self.max_age_error)?;
        let cache_bytes = self.cache.map_or(shares.answers, |size| size.as_u64());

        let intake = self.source.into_intake(shares)?;
        let table_dir = intake.table_dir.clone().or_else(|| intake.state_dir.clone());

        Ok(Config {
            listen: self.listen,
            admin_listen: self.admin_listen,
            pg,
            landlock: self.landlock,
            drain_delay: self.drain_delay.0,
            drain: self.drain.0,
            legacy: self.duckdb_path.filter(|_| self.fallback == Fallback::On),
            refresh: refresh::Settings {
                intake,
                watch: self.watch,
                retain_for: self.retain.0,
                retain_count: self.retain_count,
                keep_builds: self.keep_builds.get(),
                schemas: schemas.clone(),
            },
            engine: engine::EngineSettings {
                program: program()?,
                queries,
                process: engine::Settings {
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
            http: http::Settings {
                scoping,
                time_zone: self.timezone,
                cache_bytes,
                require: self.require,
                max_age,
                queries,
                queue: self.queue.unwrap_or_else(|| (2 * queries).max(LEAST_QUEUE)),
                query_timeout: self.query_timeout.0,
                max_rows: self.max_rows,
                max_result_bytes: self.max_result.as_u64(),
                max_body_bytes: self.max_body.as_u64(),
                max_connections: self.max_connections.get(),
                timeouts: http::Timeouts {
                    header: self.header_timeout.0,
                    body: self.body_timeout.0,
                    stall: self.stall_timeout.0,
                },
                log_sql: self.log_sql == Switch::On,
                doors: http::Doors { hosts: self.hosts, origins: self.cors_origins },
            },
        })
    }
}

/// Builders and engines are this program, too.
fn program() -> Result<PathBuf, ConfigError> {
    std::env::current_exe().map_err(|error| ConfigError {
        setting: "PATH",
        problem: format!("martd cannot find its own program: {error}"),
    })
}

/// In dbt's units, the smallest of which is the minute.
fn max_age(warn: Option<Time>, error: Option<Time>) -> Result<http::Criteria, ConfigError> {
    let period = |setting, time: Option<Time>| {
        let Some(Time(time)) = time else { return Ok(None) };
        let minutes = time.as_secs() / 60;
        if minutes == 0 || Duration::from_secs(minutes * 60) != time {
            let problem = format!("{time:?} is no number of whole minutes; write it as 90m or 25h");
            return Err(ConfigError { setting, problem });
        }
        Ok(Some(Period::of_minutes(minutes)))
    };
    let criteria = http::Criteria {
        warn_after: period("MARTD_MAX_AGE_WARN", warn)?,
        error_after: period("MARTD_MAX_AGE_ERROR", error)?,
    };
    if warn.zip(error).is_some_and(|(warn, error)| warn.0 > error.0) {
        let problem = "must not be less than MARTD_MAX_AGE_WARN".to_owned();
        return Err(ConfigError { setting: "MARTD_MAX_AGE_ERROR", problem });
    }
    Ok(criteria)
}

/// A scheme and an authority, and nothing after them.
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && !authority.is_empty() && !authority.contains('/')
    })
}

fn check_names(setting: &'static str, names: &[String]) -> Result<(), ConfigError> {
    if names.iter().any(|name| name.trim().is_empty()) {
        let problem = "an empty name; separate names by single commas".to_owned();
        return Err(ConfigError { setting, problem });
    }
    Ok(())
}
