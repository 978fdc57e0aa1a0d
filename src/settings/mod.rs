//! What the user types: every flag of `serve`, with an environment variable behind it.
//! [`config`](crate::config) makes of it what the program uses.
//!
//! Called by `commands` and `config`. No default that depends on the machine is here.

mod value;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub use self::value::Count;
pub(crate) use self::value::time;
use self::value::{count, number, size};
use crate::listen::Address;
use crate::mart_dir::MartDir;
use crate::pg::PgArgs;
use crate::publish::{Policy, Unverified};
use crate::watch::WatchSetting;

/// Where dbt-duckdb puts marts whose schema is `mart`: with the macro that most projects have, and without.
pub(crate) const SCHEMAS: [&str; 2] = ["mart", "main_mart"];

// Headings of `--help`, and of docs/settings.md.
const SERVED: &str = "What is served";
const LEGACY: &str = "A DuckDB file";
const ACCESS: &str = "Who may ask";
const STORAGE: &str = "Memory and disk";
const QUERIES: &str = "Queries";
const CONNECTIONS: &str = "Connections";
const LOG: &str = "Log and end";

/// The settings that decide what is served.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// What was named without a flag, in the place of `parquet_dir`.
    #[arg(skip)]
    pub(crate) dir: Option<MartDir>,

    /// Directory whose subdirectory `mart` holds the Parquet files
    #[arg(long, help_heading = SERVED, env = "PARQUET_DIR", value_name = "DIR", default_value = "data/parquet")]
    pub(crate) parquet_dir: PathBuf,

    /// Whether each valid file is published as it lands, or whole builds that records vouch for
    #[arg(long, help_heading = SERVED, env = "MARTD_PUBLISH", value_enum, default_value_t)]
    pub(crate) publish: Policy,

    /// What to serve after a start when no record vouches for the files within 10 s
    #[arg(long, help_heading = SERVED, env = "MARTD_UNVERIFIED", value_enum, default_value_t)]
    pub(crate) unverified: Unverified,

    /// Private directory that keeps the last published builds over a restart; without it they are lost
    #[arg(long, help_heading = SERVED, env = "MARTD_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Memory for copies of files; those that it has no room for are held open instead [default: 1/8
    /// of the memory there is]
    #[arg(long, help_heading = STORAGE, env = "MARTD_PIN_MEMORY", value_name = "SIZE", value_parser = size)]
    pub(crate) pin_memory: Option<u64>,

    /// Memory for the tables that are built from files [default: a quarter of the memory there is]
    #[arg(long, help_heading = STORAGE, env = "MARTD_TABLE_MEMORY", value_name = "SIZE", value_parser = size)]
    pub(crate) table_memory: Option<u64>,

    /// Where tables go that MARTD_TABLE_MEMORY has no room for, as files without a name [default:
    /// MARTD_STATE_DIR, where it is given]
    #[arg(long, help_heading = STORAGE, env = "MARTD_TABLE_DIR", value_name = "DIR")]
    pub(crate) table_dir: Option<PathBuf>,

    /// Where a few KiB are kept while a table is built [default: the first of MARTD_STATE_DIR, TMPDIR
    /// or /tmp, and /dev/shm that can be written]
    #[arg(long, help_heading = STORAGE, env = "MARTD_SCRATCH_DIR", value_name = "DIR")]
    pub(crate) scratch_dir: Option<PathBuf>,
}

/// The settings of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// How changes are noticed
    #[arg(long, help_heading = SERVED, env = "MARTD_WATCH", value_enum, default_value_t)]
    pub(crate) watch: WatchSetting,

    /// Schemas under which every mart can be named, separated by commas [default: mart,main_mart, and
    /// main for a DuckDB file that is named without a flag]
    #[arg(long, help_heading = SERVED, env = "MARTD_SCHEMAS", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) schemas: Option<Vec<String>>,

    /// Marts that must be served before /readyz says so, separated by commas
    #[arg(long, help_heading = SERVED, env = "MARTD_REQUIRE", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) require: Vec<String>,

    /// Age above which /v1/freshness warns of marts whose models have no rule of their own
    #[arg(long, help_heading = SERVED, env = "MARTD_MAX_AGE_WARN", value_name = "TIME", value_parser = time)]
    pub(crate) max_age_warn: Option<Duration>,

    /// Age above which /v1/freshness says `error` of the same marts
    #[arg(long, help_heading = SERVED, env = "MARTD_MAX_AGE_ERROR", value_name = "TIME", value_parser = time)]
    pub(crate) max_age_error: Option<Duration>,

    /// How many builds MARTD_STATE_DIR keeps for a rollback, the served one among them
    #[arg(long, help_heading = SERVED, env = "MARTD_KEEP_BUILDS", value_name = "N", value_parser = count, default_value = "3")]
    pub(crate) keep_builds: Count,

    /// How long a replaced snapshot can still be read by its id
    #[arg(long, help_heading = SERVED, env = "MARTD_RETAIN", value_name = "TIME", value_parser = time, default_value = "60s")]
    pub(crate) retain: Duration,

    /// How many replaced snapshots can still be read
    #[arg(long, help_heading = SERVED, env = "MARTD_RETAIN_COUNT", value_name = "N", value_parser = number::<usize>, default_value_t = 4)]
    pub(crate) retain_count: usize,

    /// How long a request waits for a snapshot or build that it names and that this replica does not have
    /// yet
    #[arg(long, help_heading = SERVED, env = "MARTD_CATCH_UP", value_name = "TIME", value_parser = time, default_value = "2s")]
    pub(crate) catch_up: Duration,

    /// DuckDB file to serve until the first mart has landed
    #[arg(long, help_heading = LEGACY, env = "DUCKDB_PATH", value_name = "FILE")]
    pub(crate) duckdb_path: Option<PathBuf>,

    /// Whether DUCKDB_PATH is served as long as there is no mart
    #[arg(long, help_heading = LEGACY, env = "MARTD_FALLBACK", value_enum, default_value_t)]
    pub(crate) fallback: Fallback,

    /// Where to serve: ADDRESS:PORT, or unix:PATH for a socket of its user and group. A socket
    /// that systemd passes takes its place
    #[arg(long, help_heading = ACCESS, env = "MARTD_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8321")]
    pub(crate) listen: Address,

    /// Where to serve probes and metrics as well, without a token. They answer there even when all
    /// connections are taken
    #[arg(long, help_heading = ACCESS, env = "MARTD_ADMIN_LISTEN", value_name = "ADDR")]
    pub(crate) admin_listen: Option<Address>,

    #[command(flatten)]
    pub(crate) pg: PgArgs,

    /// File of bearer tokens, one to a line; without it no token is asked for
    #[arg(long, help_heading = ACCESS, env = "MARTD_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Column that scopes rows: every query must then carry Martd-Scope: COLUMN=VALUE, and sees only the
    /// rows with that value
    #[arg(long, help_heading = ACCESS, env = "MARTD_SCOPE_COLUMN", value_name = "COLUMN")]
    pub(crate) scope_column: Option<String>,

    /// Marts without the scope column that anyone may read, separated by commas
    #[arg(long, help_heading = ACCESS, env = "MARTD_UNSCOPED", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) unscoped: Vec<String>,

    /// Names by which clients reach martd, separated by commas. A request on loopback that names
    /// another host is refused, and elsewhere too once this is set; addresses and localhost are always
    /// fine
    #[arg(long, help_heading = ACCESS, env = "MARTD_HOSTS", value_name = "NAMES", value_delimiter = ',')]
    pub(crate) hosts: Vec<String>,

    /// Origins of the web pages that may ask from a browser, such as `https://app.example.org`,
    /// separated by commas
    #[arg(long, help_heading = ACCESS, env = "MARTD_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    pub(crate) cors_origins: Vec<String>,

    /// What to do on a kernel without Landlock, by which martd gives up its rights
    #[arg(long, help_heading = ACCESS, env = "MARTD_LANDLOCK", value_enum, default_value_t)]
    pub(crate) landlock: Landlock,

    /// Memory for DuckDB [default: a quarter of the memory there is]
    #[arg(long, help_heading = STORAGE, env = "MARTD_MEMORY", value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<u64>,

    /// Memory for cached answers [default: 1/16 of the memory there is]; 0 turns the cache off
    #[arg(long, help_heading = STORAGE, env = "MARTD_CACHE", value_name = "SIZE", value_parser = size)]
    pub(crate) cache: Option<u64>,

    /// Processors that queries use together. A single query uses more than one only over marts of 491,520
    /// rows or more [default: those there are]
    #[arg(long, help_heading = QUERIES, env = "MARTD_THREADS", value_name = "N", value_parser = count)]
    pub(crate) threads: Option<Count>,

    /// Queries that run at once, and one more for a client that has no other [default: the processors there are]
    #[arg(long, help_heading = QUERIES, env = "MARTD_QUERIES", value_name = "N", value_parser = count)]
    pub(crate) queries: Option<Count>,

    /// Queries that may wait for their turn, each until its own timeout. A client that has no other query
    /// may always wait [default: twice MARTD_QUERIES, and 32 at least]
    #[arg(long, help_heading = QUERIES, env = "MARTD_QUEUE", value_name = "N", value_parser = number::<usize>)]
    pub(crate) queue: Option<usize>,

    /// Time that a query may take, unless it asks for less
    #[arg(long, help_heading = QUERIES, env = "MARTD_QUERY_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub(crate) query_timeout: Duration,

    /// The most rows of an answer. JSON stops at 10000 unless the request has a limit
    #[arg(long, help_heading = QUERIES, env = "MARTD_MAX_ROWS", value_name = "N", value_parser = number::<u64>, default_value_t = 10_000_000)]
    pub(crate) max_rows: u64,

    /// The largest answer
    #[arg(long, help_heading = QUERIES, env = "MARTD_MAX_RESULT", value_name = "SIZE", value_parser = size, default_value = "1GiB")]
    pub(crate) max_result: u64,

    /// Session time zone
    #[arg(long, help_heading = QUERIES, env = "MARTD_TIMEZONE", value_name = "ZONE", default_value = "UTC")]
    pub(crate) timezone: String,

    /// Connections that are open at once
    #[arg(long, help_heading = CONNECTIONS, env = "MARTD_MAX_CONNECTIONS", value_name = "N", value_parser = count, default_value = "512")]
    pub(crate) max_connections: Count,

    /// The largest request body
    #[arg(long, help_heading = CONNECTIONS, env = "MARTD_MAX_BODY", value_name = "SIZE", value_parser = size, default_value = "256KiB")]
    pub(crate) max_body: u64,

    /// Time for a client to send a request's head, also on an idle connection
    #[arg(long, help_heading = CONNECTIONS, env = "MARTD_HEADER_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "30s")]
    pub(crate) header_timeout: Duration,

    /// Time for a client to send a request's body
    #[arg(long, help_heading = CONNECTIONS, env = "MARTD_BODY_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "10s")]
    pub(crate) body_timeout: Duration,

    /// Time for a client to take any bytes of its answer
    #[arg(long, help_heading = CONNECTIONS, env = "MARTD_STALL_TIMEOUT", value_name = "TIME", value_parser = time, default_value = "30s")]
    pub(crate) stall_timeout: Duration,

    /// Whether statements are logged as text, without the values of their parameters. When off, only
    /// their hashes are
    #[arg(long, help_heading = LOG, env = "MARTD_LOG_SQL", value_enum, default_value_t)]
    pub(crate) log_sql: Switch,

    /// Time after SIGTERM in which requests are still taken while /readyz says no, so that load
    /// balancers look elsewhere first
    #[arg(long, help_heading = LOG, env = "MARTD_DRAIN_DELAY", value_name = "TIME", value_parser = time, default_value = "500ms")]
    pub(crate) drain_delay: Duration,

    /// Time after that for requests in flight to finish
    #[arg(long, help_heading = LOG, env = "MARTD_DRAIN", value_name = "TIME", value_parser = time, default_value = "20s")]
    pub(crate) drain: Duration,
}

/// `MARTD_LANDLOCK`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Landlock {
    /// Warn, and with MARTD_SCOPE_COLUMN do not start
    #[default]
    Auto,
    /// Warn, also with MARTD_SCOPE_COLUMN
    Optional,
}

/// `MARTD_FALLBACK`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fallback {
    /// The legacy file is served until the first mart has landed
    #[default]
    On,
    /// It is never served: the migration is over
    Off,
}

/// On or off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    #[default]
    Off,
    On,
}
