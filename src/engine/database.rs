//! The DuckDB database of one snapshot, locked down to the pins of its marts.
//!
//! It dies with its snapshot, and with it what DuckDB caches by path.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tracing::warn;

use super::instance::{Settings, Table};
use super::legacy;
use crate::duck::{Connection, Database, DuckError, ErrorKind};
use crate::duck::{quote_identifier, quote_literal};
use crate::legacy::LegacyVersion;
use crate::pin::PinKind;

/// A database that is locked down.
pub(super) struct LockedDatabase {
    pub(super) database: Arc<Database>,
    /// The marts by (schema, name) in lower case, as DuckDB compares identifiers.
    pub(super) names: HashMap<(String, String), usize>,
    /// Marts whose views exist. A view costs 0.2 ms, so it is made when a statement first names it:
    /// a thousand marts cost no more than eleven.
    pub(super) viewed: Mutex<HashSet<usize>>,
    /// DuckDB has failed in a way after which it refuses every statement.
    is_broken: AtomicBool,
}

impl fmt::Debug for LockedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedDatabase").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

/// What a database is opened over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Contents<'c> {
    /// The pins of marts.
    Pins,
    /// A copy of the legacy file, attached under this name.
    Legacy(&'c LegacyVersion, &'c str),
    /// Nothing: the legacy file is opened for each request.
    Nothing,
}

impl LockedDatabase {
    /// Opens a database in which these tables are, and locks it down.
    pub(super) fn open(
        settings: &Settings,
        tables: &[Table],
        contents: Contents<'_>,
    ) -> Result<(Self, Connection), DuckError> {
        let temp_dir = settings.temp_dir.as_ref().map(|dir| dir.display().to_string());
        let database = Database::open_in_memory(&[
            ("memory_limit", format!("{}B", settings.memory_bytes)),
            ("threads", settings.threads.to_string()),
            ("temp_directory", temp_dir.unwrap_or_default()),
            ("autoinstall_known_extensions", "false".to_owned()),
            ("autoload_known_extensions", "false".to_owned()),
            ("allow_community_extensions", "false".to_owned()),
        ])?;

        let mut names = HashMap::new();
        let mut schemas: Vec<&String> = settings.schemas.iter().collect();
        for (index, table) in tables.iter().enumerate() {
            for schema in settings.schemas.iter().chain(&table.schema) {
                let key = (schema.to_ascii_lowercase(), table.name.to_ascii_lowercase());
                names.insert(key, index);
                if !schemas.iter().any(|known| known.eq_ignore_ascii_case(schema)) {
                    schemas.push(schema);
                }
            }
        }

        let connection = database.connect()?;
        let are_sealed = tables.iter().all(|table| table.pin.kind() == PinKind::Memory);
        // What is sealed keeps its footer, so each is parsed once. A held file may be rewritten in
        // place, and is looked at anew by each statement.
        if are_sealed {
            connection.execute("SET parquet_metadata_cache = true")?;
        }
        for schema in &schemas {
            connection
                .execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote_identifier(schema)))?;
        }
        connection
            .execute(&format!("SET GLOBAL TimeZone = {}", quote_literal(&settings.time_zone)))?;
        match contents {
            Contents::Nothing => {}
            Contents::Legacy(version, catalog) => {
                let place = version
                    .place_here()
                    .map_err(|error| DuckError::new(ErrorKind::Io, error.to_string()))?;
                legacy::attach(&connection, place.path(), catalog)?;
                lock_down(&connection, &[])?;
            }
            Contents::Pins => lock_down(&connection, tables)?,
        }
        let locked =
            Self { database, names, viewed: Mutex::default(), is_broken: AtomicBool::new(false) };
        Ok((locked, connection))
    }

    /// An internal error of a statement, too, makes DuckDB refuse all that come after it.
    pub(super) fn note(&self, error: &DuckError) {
        if error.is_fatal() && !self.is_broken.swap(true, Ordering::Relaxed) {
            warn!(%error, "DuckDB has failed: its database is opened anew");
        }
    }

    /// Whether it is of no use any more.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// From here on the database reads its pins and nothing else, and no statement can change that.
/// DuckDB refuses these settings in any other order.
fn lock_down(connection: &Connection, tables: &[Table]) -> Result<(), DuckError> {
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
    let list = paths.iter().map(|path| quote_literal(path)).collect::<Vec<_>>().join(", ");
    connection.execute(&format!("SET allowed_paths = [{list}]"))?;
    connection.execute("SET enable_external_access = false")?;
    connection.execute("SET lock_configuration = true")
}
