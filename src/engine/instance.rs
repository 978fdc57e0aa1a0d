//! The database over one snapshot: opened, locked down, and dropped with it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;

use super::decoded::{self, ROWS_SCHEMA};
use super::duck::{Connection, Database, DuckError};
use super::helpers;
use super::legacy::{self, catalog_name};
use super::listing::{LISTINGS, Listing};
use super::prepared::{Pooled, Recent};
use super::query::{QueryError, Session};
use super::runtime::Runtime;
use super::warmth::Warmth;
use super::{quote_identifier, quote_literal};
use crate::legacy::LegacyVersion;
use crate::pin::{Pin, PinKind};
use crate::verify::ReportColumn;

/// What every instance is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// DuckDB's memory limit for one instance, in bytes.
    pub memory_bytes: u64,
    /// Processors that statements may take together.
    pub threads: usize,
    /// Memory for decoded marts, over all instances, in bytes.
    pub decoded_bytes: u64,
    /// Where DuckDB may spill to; nowhere when absent.
    pub temp_dir: Option<PathBuf>,
    /// The session time zone.
    pub time_zone: String,
    /// The schemas under which every mart can be named.
    pub schemas: Vec<String>,
    /// How rows are scoped, if they are.
    pub scoping: Option<Scoping>,
}

/// `MARTD_SCOPE_COLUMN` and `MARTD_UNSCOPED`: which rows a request may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoping {
    /// The column whose value decides, for example `user_id`.
    pub column: String,
    /// Marts without that column that anyone may read as a whole.
    pub unscoped: Vec<String>,
}

/// The rows that one request sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All, where scoping is on or off.
    AllRows,
    /// Those whose scope column has this value. A value that is none of the column's type has no
    /// rows.
    Value(String),
}

/// The variables that the views of scoped marts look at. A client's statement can neither set nor
/// read them; unset, a view has no rows.
pub(super) const SCOPE_VARIABLE: &str = "martd_scope";
pub(super) const ALL_ROWS_VARIABLE: &str = "martd_all_rows";

/// DuckDB splits a scan by row groups of 122,880 rows. With fewer than two for each thread, the plan
/// for several threads costs a statement more than they spare it: a fifth to a third of its time.
const ROWS_PER_THREAD: u64 = 2 * 122_880;

/// A mart as an instance serves it.
#[derive(Debug, Clone)]
pub struct Table {
    /// The mart's name.
    pub name: String,
    /// A schema under which this mart alone can be named as well; in a legacy file, where it is.
    pub schema: Option<String>,
    /// Its bytes.
    pub pin: Arc<Pin>,
    /// Its columns.
    pub columns: Vec<ReportColumn>,
    /// How many rows it has.
    pub rows: u64,
    /// Whether to serve it without rows whatever the file holds (dbt-duckdb's empty model).
    pub empty: bool,
}

/// The in-memory database of one snapshot.
pub struct Instance {
    // Fields drop in this order: no connection may outlive the pins that its views read.
    idle: Mutex<Vec<Pooled>>,
    database: Arc<Database>,
    /// How many threads a statement may have.
    threads: usize,
    tables: Vec<Table>,
    legacy: Option<Legacy>,
    schemas: Vec<String>,
    scoping: Option<Scoping>,
    /// (schema, name) in lower case, as DuckDB compares identifiers.
    names: HashMap<(String, String), usize>,
    /// Connections of the pool, idle or not.
    opened: AtomicUsize,
    recent: Mutex<Recent>,
    /// By the text of the statement.
    listings: Cache<Box<str>, Arc<Listing>>,
    /// Tables whose views exist. A view costs 0.2 ms, so it is made when a statement first names it:
    /// a thousand marts cost no more than eleven.
    viewed: Mutex<HashSet<usize>>,
    /// Those whose views with the numbers of rows exist.
    numbered: Mutex<HashSet<usize>>,
    warmth: Warmth,
    runtime: Arc<Runtime>,
}

/// The legacy file in the place of the pins of marts.
struct Legacy {
    version: Arc<LegacyVersion>,
    /// The name that it is attached under.
    catalog: String,
    /// For a file that is too large to copy: each request opens it anew, and none beside another.
    turns: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

impl Instance {
    /// Opens a database over these tables and locks it down.
    ///
    /// # Errors
    /// DuckDB's message, for example for an unknown time zone.
    pub fn open(runtime: &Arc<Runtime>, tables: Vec<Table>) -> Result<Arc<Self>, DuckError> {
        Self::open_over(runtime, tables, None)
    }

    /// Opens a database over the tables of a legacy file.
    ///
    /// # Errors
    /// DuckDB's message, or why the file has no place where DuckDB could find it.
    pub fn open_legacy(
        runtime: &Arc<Runtime>,
        tables: Vec<Table>,
        version: Arc<LegacyVersion>,
    ) -> Result<Arc<Self>, DuckError> {
        let turns = (!version.is_copied()).then(Arc::default);
        let catalog = catalog_name(&version.path, &runtime.settings.schemas);
        Self::open_over(runtime, tables, Some(Legacy { version, catalog, turns }))
    }

    fn open_over(
        runtime: &Arc<Runtime>,
        tables: Vec<Table>,
        legacy: Option<Legacy>,
    ) -> Result<Arc<Self>, DuckError> {
        let settings = &runtime.settings;
        let temp_dir = settings.temp_dir.as_ref().map(|dir| dir.display().to_string());
        let largest = tables.iter().map(|table| table.rows).max().unwrap_or_default();
        let useful = usize::try_from(largest / ROWS_PER_THREAD).unwrap_or(usize::MAX);
        let threads = useful.clamp(1, settings.threads);
        let database = Database::open_in_memory(&[
            ("memory_limit", format!("{}B", settings.memory_bytes)),
            ("threads", threads.to_string()),
            // None of its own: see the helpers.
            ("external_threads", threads.to_string()),
            ("temp_directory", temp_dir.unwrap_or_default()),
            ("autoinstall_known_extensions", "false".to_owned()),
            ("autoload_known_extensions", "false".to_owned()),
            ("allow_community_extensions", "false".to_owned()),
        ])?;

        let mut names = HashMap::new();
        let mut schemas: Vec<String> = settings.schemas.clone();
        for (index, table) in tables.iter().enumerate() {
            for schema in settings.schemas.iter().chain(&table.schema) {
                let key = (schema.to_ascii_lowercase(), table.name.to_ascii_lowercase());
                names.insert(key, index);
                if !schemas.iter().any(|known| known.eq_ignore_ascii_case(schema)) {
                    schemas.push(schema.clone());
                }
            }
        }

        let connection = database.connect()?;
        // What is sealed keeps its footer, so each is parsed once for a snapshot. A held file may be
        // rewritten in place, and is looked at anew by each statement.
        if tables.iter().all(|table| table.pin.kind() == PinKind::Memory) {
            connection.execute("SET parquet_metadata_cache = true")?;
        }
        for schema in &schemas {
            connection
                .execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote_identifier(schema)))?;
        }
        connection
            .execute(&format!("SET GLOBAL TimeZone = {}", quote_literal(&settings.time_zone)))?;
        match &legacy {
            // What is opened for each request is of no use before.
            Some(Legacy { turns: Some(_), .. }) => {}
            Some(Legacy { version, catalog, .. }) => {
                let place = version.place_here().map_err(|error| DuckError(error.to_string()))?;
                legacy::attach(&connection, place.path(), catalog)?;
                lock_down(&connection, &[])?;
            }
            None => {
                let paths = tables.iter().map(|table| table.pin.path()).collect();
                connection.execute(&format!("CREATE SCHEMA {ROWS_SCHEMA}"))?;
                decoded::install(&database, &connection, paths)?;
                lock_down(&connection, &tables)?;
            }
        }
        let warmth = Warmth::new(tables.len());
        Ok(Arc::new(Self {
            idle: Mutex::new(vec![Pooled::new(connection)]),
            database,
            threads,
            tables,
            legacy,
            schemas: settings.schemas.clone(),
            scoping: settings.scoping.clone(),
            names,
            opened: AtomicUsize::new(1),
            recent: Mutex::default(),
            listings: Cache::new(LISTINGS),
            viewed: Mutex::default(),
            numbered: Mutex::default(),
            warmth,
            runtime: Arc::clone(runtime),
        }))
    }

    /// Takes a connection for one request. Blocks while another request has the legacy file, where
    /// that is too large to copy.
    ///
    /// # Errors
    /// [`QueryError::LegacyLocked`] when a writer has the legacy file or has changed it, else when
    /// DuckDB has no connection to give.
    pub fn session(self: &Arc<Self>) -> Result<Session, QueryError> {
        let Some(Legacy { version, catalog, turns: Some(turns) }) = &self.legacy else {
            let connection = self.connection()?;
            return Ok(Session::new(Arc::clone(self), connection, None));
        };
        let turn = Arc::clone(turns).blocking_lock_owned();
        let legacy = Legacy { version: Arc::clone(version), catalog: catalog.clone(), turns: None };
        let opened = Self::open_over(&self.runtime, self.tables.clone(), Some(legacy));
        let instance = opened.map_err(|error| match error.is_lock_conflict() {
            true => QueryError::LegacyLocked("a writer has the legacy DuckDB file"),
            false => QueryError::Internal(error.to_string()),
        })?;
        // From here on the file is locked against writers. One that came before is noticed soon.
        if !version.is_current() {
            return Err(QueryError::LegacyLocked("the legacy DuckDB file has just changed"));
        }
        let connection = instance.connection()?;
        Ok(Session::new(instance, connection, Some(turn)))
    }

    pub(super) fn connection(&self) -> Result<Pooled, QueryError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => match self.database.connect() {
                Ok(connection) => {
                    self.opened.fetch_add(1, Ordering::Relaxed);
                    Ok(Pooled::new(connection))
                }
                Err(error) => Err(QueryError::Internal(error.to_string())),
            },
        }
    }

    /// How many connections the pool has.
    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// What it was asked.
    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listings whose columns are known.
    pub(super) fn listings(&self) -> &Cache<Box<str>, Arc<Listing>> {
        &self.listings
    }

    /// Drops what idle connections keep prepared.
    pub(super) fn forget_prepared(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter_mut().for_each(Pooled::forget_prepared);
    }

    /// Whether this instance serves exactly these tables.
    pub fn serves(&self, tables: &[Table]) -> bool {
        self.tables.len() == tables.len()
            && self.tables.iter().zip(tables).all(|(own, other)| {
                Arc::ptr_eq(&own.pin, &other.pin)
                    && own.name == other.name
                    && own.schema == other.schema
                    && own.empty == other.empty
            })
    }

    pub(super) fn give_back(&self, mut connection: Pooled) {
        if self.warmth.is_over() {
            connection.forget_prepared(); // plans keep decoded marts
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// The table that a schema and a name mean.
    pub(super) fn table(&self, schema: &str, name: &str) -> Option<usize> {
        self.names.get(&(schema.to_ascii_lowercase(), name.to_ascii_lowercase())).copied()
    }

    /// The name of the mart that somebody who wrote `name` may have meant.
    pub(super) fn similar(&self, name: &str) -> Option<String> {
        let schema = self.schemas.first()?;
        let wanted = name.to_ascii_lowercase();
        let table = self.tables.iter().find(|table| table.name.to_ascii_lowercase() == wanted)?;
        Some(format!("{schema}.{}", table.name))
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub(super) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    pub(super) fn warmth(&self) -> &Warmth {
        &self.warmth
    }

    /// Says that a statement runs, so that idle processors may help.
    pub(super) fn begin(&self) -> helpers::Guard<'_> {
        self.runtime.helpers.begin(&self.database, self.threads == 1)
    }

    /// A connection that is not of the pool.
    pub(super) fn connect(&self) -> Result<Connection, DuckError> {
        self.database.connect()
    }

    /// The one number that a statement of martd's own answers.
    pub(super) fn number(&self, sql: &str) -> Result<Option<i64>, DuckError> {
        let mut statement = self.database.connect()?.prepare(sql)?;
        let chunk = statement.execute()?.next_chunk()?;
        Ok(chunk.and_then(|chunk| {
            let column = chunk.column(0);
            (!column.is_null(0)).then(|| column.values::<i64>()[0])
        }))
    }

    /// The pin of a table.
    pub(super) fn pin(&self, table: usize) -> &Pin {
        &self.tables[table].pin
    }

    /// The name of a table.
    pub(super) fn name(&self, table: usize) -> &str {
        &self.tables[table].name
    }

    /// The name of the mart whose bytes are at this path.
    pub(super) fn mart_at(&self, path: &str) -> Option<&str> {
        self.tables.iter().find(|table| table.pin.path() == path).map(|table| table.name.as_str())
    }

    /// Whether a table can be read under scoping: it has the column, or is listed as unscoped.
    pub(super) fn is_readable(&self, index: usize) -> Result<(), String> {
        let table = &self.tables[index];
        let Some(scoping) = &self.scoping else { return Ok(()) };
        if scoping.covers(&table.name) || scoping.column_of(table).is_some() {
            return Ok(());
        }
        Err(format!(
            "mart {} has no column {}, so its rows cannot be told apart; list it in \
             MARTD_UNSCOPED if anyone may read it",
            table.name, scoping.column
        ))
    }

    /// The column by which the rows of a table are told apart, where they are.
    pub(super) fn scope_column<'t>(&self, table: &'t Table) -> Option<&'t ReportColumn> {
        let scoping = self.scoping.as_ref().filter(|scoping| !scoping.covers(&table.name))?;
        scoping.column_of(table)
    }

    /// Which of a table's rows its view shows. What a variable holds is a constant to DuckDB, so
    /// this becomes a filter on the file, and costs nothing.
    fn condition(&self, table: &Table) -> String {
        if table.empty {
            return " WHERE false".to_owned();
        }
        let Some(column) = self.scope_column(table) else { return String::new() };
        format!(
            " WHERE {} = TRY_CAST(getvariable('{SCOPE_VARIABLE}') AS {}) \
             OR getvariable('{ALL_ROWS_VARIABLE}') IS NOT DISTINCT FROM true",
            quote_identifier(&column.name),
            column.ty,
        )
    }

    /// Makes the views of a table, unless they exist.
    pub(super) fn ensure_view(
        &self,
        connection: &Connection,
        index: usize,
    ) -> Result<(), DuckError> {
        let mut viewed = self.viewed.lock().unwrap_or_else(PoisonError::into_inner);
        if viewed.contains(&index) {
            return Ok(());
        }
        let table = &self.tables[index];
        let condition = self.condition(table);
        let source = match &self.legacy {
            Some(Legacy { catalog, .. }) => {
                let schema = table.schema.as_deref().unwrap_or_default();
                legacy::source(catalog, schema, &table.name)
            }
            None => decoded::table_name(index),
        };
        for schema in self.schemas.iter().chain(&table.schema) {
            connection.execute(&format!(
                "CREATE VIEW IF NOT EXISTS {}.{} AS FROM {source}{condition}",
                quote_identifier(schema),
                quote_identifier(&table.name),
            ))?;
        }
        viewed.insert(index);
        Ok(())
    }

    /// Makes the view of a mart that has the numbers of its rows, unless it exists. The mart is
    /// picked by this thread.
    pub(super) fn ensure_numbered_view(
        &self,
        connection: &Connection,
        index: usize,
    ) -> Result<(), DuckError> {
        let mut numbered = self.numbered.lock().unwrap_or_else(PoisonError::into_inner);
        if !numbered.contains(&index) {
            let table = &self.tables[index];
            connection.execute(&format!(
                "CREATE VIEW {ROWS_SCHEMA}.{} AS FROM {}{}",
                quote_identifier(&table.name),
                decoded::numbered_table_name(index),
                self.condition(table),
            ))?;
            numbered.insert(index);
        }
        Ok(())
    }
}

impl Scoping {
    fn covers(&self, table: &str) -> bool {
        self.unscoped.iter().any(|name| name.eq_ignore_ascii_case(table))
    }

    fn column_of<'t>(&self, table: &'t Table) -> Option<&'t ReportColumn> {
        table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(&self.column))
    }
}

/// From here on the instance reads its pins and nothing else, and no statement can change that.
/// DuckDB refuses these settings in any other order.
fn lock_down(connection: &Connection, tables: &[Table]) -> Result<(), DuckError> {
    let list = |paths: Vec<String>| {
        paths.iter().map(|path| quote_literal(path)).collect::<Vec<_>>().join(", ")
    };
    let mut paths: Vec<String> = tables.iter().map(|table| table.pin.path()).collect();
    let held = tables.iter().filter(|table| table.pin.kind() == PinKind::Descriptor);
    let origins: Vec<String> = held
        .filter_map(|table| table.pin.origin())
        .map(|path| path.display().to_string())
        .collect();
    if !origins.is_empty() {
        // DuckDB resolves a held descriptor to the file's path, and once the file was replaced, to
        // nothing; only a whole directory lets it through then.
        connection.execute("SET allowed_directories = ['/proc/self/fd']")?;
        paths.extend(origins);
    }
    connection.execute(&format!("SET allowed_paths = [{}]", list(paths)))?;
    connection.execute("SET enable_external_access = false")?;
    connection.execute("SET lock_configuration = true")
}
