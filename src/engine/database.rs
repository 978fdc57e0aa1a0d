//! The DuckDB database that snapshots share while their marts have the same names and columns.
//!
//! To open a database, and to close it, takes DuckDB longer than all else of a publish takes, and is
//! the same each time. So it is opened once, and locked down to descriptors of fixed numbers, its
//! [`Place`]s. A version of a mart is put into one for as long as a snapshot serves it.
//!
//! What is in the database is the same for all of its snapshots: views, which read marts by their
//! number. Which bytes a number stands for is told while DuckDB binds a statement, by the snapshot
//! whose statement it is ([`decoded::pick`]). What DuckDB caches by path is of no other version than
//! the one in the place: no two pins [have a modification time in common](Pin::new).

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::MemfdFlags;
use rustix::io::DupFlags;
use tracing::{debug, warn};

use super::decoded::{self, ROWS_SCHEMA};
use super::duck::{Connection, Database, DuckError};
use super::instance::{Settings, Table};
use super::legacy;
use super::{quote_identifier, quote_literal};
use crate::legacy::LegacyVersion;
use crate::pin::{Pin, PinKind, descriptor_limit, memfd};

/// DuckDB splits a scan by row groups of 122,880 rows. With fewer than two for each thread, the plan
/// for several threads costs a statement more than they spare it: a fifth to a third of its time.
const ROWS_PER_THREAD: u64 = 2 * 122_880;

/// Places for versions of marts: two builds of all, the next one while both are in use, ...
const PLACES_PER_MART: usize = 3;
/// ... and single marts that are replaced again and again.
const MORE_PLACES: usize = 16;
/// Not more than this part of the descriptors that martd may have: pins take half, and a database that
/// was replaced may be in use still.
const PART_OF_DESCRIPTORS: u64 = 16;

/// A database that is locked down.
pub(super) struct SharedDatabase {
    pub(super) database: Arc<Database>,
    /// How many threads a statement may have.
    pub(super) threads: usize,
    /// The marts by (schema, name) in lower case, as DuckDB compares identifiers.
    pub(super) names: HashMap<(String, String), usize>,
    /// Marts whose views exist. A view costs 0.2 ms, so it is made when a statement first names it:
    /// a thousand marts cost no more than eleven.
    pub(super) viewed: Mutex<HashSet<usize>>,
    /// Those whose views with the numbers of rows exist.
    pub(super) numbered: Mutex<HashSet<usize>>,
    /// DuckDB has failed in a way after which it refuses every statement.
    is_broken: AtomicBool,
    /// `None` where the marts are read by the paths of their pins, and no other versions of them.
    places: Option<Arc<Places>>,
}

impl fmt::Debug for SharedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedDatabase").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

/// Where the marts of one snapshot are.
#[derive(Debug)]
pub(super) struct Paths {
    /// As DuckDB opens them, by the number of the mart.
    pub(super) all: Arc<[CString]>,
    /// What is in them, where the database has places.
    places: Vec<Arc<Place>>,
}

impl Paths {
    /// The path of a mart.
    pub(super) fn of(&self, table: usize) -> &str {
        self.all[table].to_str().expect("made from a string")
    }

    fn in_places(places: Vec<Arc<Place>>) -> Self {
        Self { all: places.iter().map(|place| place.path.clone()).collect(), places }
    }

    fn of_pins(tables: &[Table]) -> Self {
        let path = |table: &Table| CString::new(table.pin.path()).expect("has no NUL");
        Self { all: tables.iter().map(path).collect(), places: Vec::new() }
    }
}

fn path(descriptor: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).expect("has no NUL")
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

impl SharedDatabase {
    /// Opens a database in which these tables are, and locks it down.
    pub(super) fn open(
        settings: &Settings,
        tables: &[Table],
        contents: Contents<'_>,
    ) -> Result<(Arc<Self>, Paths, Connection), DuckError> {
        let temp_dir = settings.temp_dir.as_ref().map(|dir| dir.display().to_string());
        let threads = useful_threads(settings, tables);
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
        let (mut places, mut paths) = (None, Paths::of_pins(tables));
        match contents {
            Contents::Nothing => {}
            Contents::Legacy(version, catalog) => {
                let place = version.place_here().map_err(|error| DuckError(error.to_string()))?;
                legacy::attach(&connection, place.path(), catalog)?;
                lock_down(&connection, &[], &[])?;
            }
            Contents::Pins => {
                let mut allowed = Vec::new();
                if are_sealed && let Some((own, taken)) = Places::with(tables) {
                    allowed = own.paths();
                    (places, paths) = (Some(own), Paths::in_places(taken));
                }
                allowed.extend(paths.all.iter().cloned());
                connection.execute(&format!("CREATE SCHEMA {ROWS_SCHEMA}"))?;
                decoded::install(&database, &connection)?;
                lock_down(&connection, tables, &allowed)?;
            }
        }
        let shared = Self {
            database,
            threads,
            names,
            viewed: Mutex::default(),
            numbered: Mutex::default(),
            is_broken: AtomicBool::new(false),
            places,
        };
        Ok((Arc::new(shared), paths, connection))
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

    /// Where these tables are in this database, which was opened for such as `before`; `None` when
    /// it cannot serve them, too.
    pub(super) fn paths_for(
        &self,
        settings: &Settings,
        (before, own): (&[Table], &Paths),
        tables: &[Table],
    ) -> Option<Paths> {
        let places = self.places.as_ref()?;
        let alike = |(table, before): (&Table, &Table)| {
            table.name == before.name
                && table.schema == before.schema
                && table.columns == before.columns
                && table.empty == before.empty
                && table.pin.kind() == PinKind::Memory
        };
        if self.is_broken()
            || tables.len() != before.len()
            || useful_threads(settings, tables) != self.threads
            || !tables.iter().zip(before).all(alike)
        {
            return None;
        }
        let taken = tables.iter().zip(before).zip(&own.places).map(|((table, before), place)| {
            match Arc::ptr_eq(&table.pin, &before.pin) {
                true => Some(Arc::clone(place)),
                false => places.put(&table.pin),
            }
        });
        Some(Paths::in_places(taken.collect::<Option<_>>()?))
    }
}

fn useful_threads(settings: &Settings, tables: &[Table]) -> usize {
    let largest = tables.iter().map(|table| table.rows).max().unwrap_or_default();
    let useful = usize::try_from(largest / ROWS_PER_THREAD).unwrap_or(usize::MAX);
    useful.clamp(1, settings.threads)
}

/// Descriptors by which a database reads pins.
#[derive(Debug)]
struct Places {
    free: Mutex<Vec<OwnedFd>>,
    /// What is in a free place: an empty file of its own kind, for DuckDB resolves what leads elsewhere.
    nothing: OwnedFd,
}

impl Places {
    /// Enough for these marts, which are in some of them; `None` when they cannot be had.
    fn with(tables: &[Table]) -> Option<(Arc<Self>, Vec<Arc<Place>>)> {
        let places = Self::for_marts(tables.len())?;
        let taken = tables.iter().map(|table| places.put(&table.pin)).collect::<Option<_>>()?;
        Some((places, taken))
    }

    /// Enough for so many; `None` when martd may not have as many descriptors.
    fn for_marts(marts: usize) -> Option<Arc<Self>> {
        let most = usize::try_from(descriptor_limit() / PART_OF_DESCRIPTORS).unwrap_or(usize::MAX);
        let count = (PLACES_PER_MART * marts + MORE_PLACES).min(most);
        if count < marts + MORE_PLACES {
            return None;
        }
        let reserved = Self::reserve(count);
        reserved.inspect_err(|error| debug!(%error, "each snapshot has a database")).ok()
    }

    fn reserve(count: usize) -> io::Result<Arc<Self>> {
        let nothing = memfd("martd-place", MemfdFlags::CLOEXEC)?;
        let free = (0..count).map(|_| rustix::io::fcntl_dupfd_cloexec(&nothing, 0));
        let free = Mutex::new(free.collect::<Result<Vec<_>, _>>()?);
        Ok(Arc::new(Self { free, nothing }))
    }

    /// The paths of those that are free.
    fn paths(&self) -> Vec<CString> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().map(path).collect()
    }

    /// Puts a pin into a free place, if there is one.
    fn put(self: &Arc<Self>, pin: &Pin) -> Option<Arc<Place>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut descriptor = free.pop()?;
        if let Err(error) = rustix::io::dup3(pin, &mut descriptor, DupFlags::CLOEXEC) {
            debug!(%error, "a pin cannot be put into its place");
            free.push(descriptor);
            return None;
        }
        let path = path(&descriptor);
        Some(Arc::new(Place { path, descriptor: Some(descriptor), home: Arc::clone(self) }))
    }
}

/// A place with a pin in it; free again when dropped.
#[derive(Debug)]
struct Place {
    path: CString,
    /// Until it is dropped.
    descriptor: Option<OwnedFd>,
    home: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(mut descriptor) = self.descriptor.take() else { return };
        match rustix::io::dup3(&self.home.nothing, &mut descriptor, DupFlags::CLOEXEC) {
            // The next pin comes here: DuckDB then forgets what it keeps of this one.
            Ok(()) => {
                let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
                free.push(descriptor);
            }
            // The database may open this number, so it must not become anything else's.
            Err(_) => drop(descriptor.into_raw_fd()),
        }
    }
}

/// From here on the database reads its pins and nothing else, and no statement can change that.
/// DuckDB refuses these settings in any other order.
fn lock_down(
    connection: &Connection,
    tables: &[Table],
    allowed: &[CString],
) -> Result<(), DuckError> {
    let mut paths: Vec<String> =
        allowed.iter().map(|path| path.to_string_lossy().into_owned()).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::query::tests::{mart, settings};
    use crate::engine::{Checked, Gate, Instance, Parameters, Runtime, Scope};

    fn open(tables: Vec<Table>) -> Arc<Instance> {
        Instance::open(&Runtime::start(settings()), tables).expect("an instance")
    }

    fn after(previous: &Instance, tables: Vec<Table>) -> Arc<Instance> {
        Instance::open_after(previous, tables).expect("an instance")
    }

    fn are_together(one: &Instance, other: &Instance) -> bool {
        Arc::ptr_eq(one.shared(), other.shared())
    }

    const SUMS: &str = "SELECT sum(x)::BIGINT FROM mart.a UNION ALL SELECT sum(y) FROM mart.b";

    fn sums(instance: &Arc<Instance>, checked: &Arc<Checked>) -> Vec<i64> {
        let mut session = instance.session().expect("a session");
        let parameters = Parameters::default();
        let outcome = session.query(SUMS, checked, &parameters, &Scope::AllRows, |answer| {
            let mut sums = Vec::new();
            while let Some(chunk) = answer.next_chunk()? {
                sums.extend_from_slice(chunk.column(0).values::<i64>());
            }
            Ok(sums)
        });
        outcome.expect("rows")
    }

    /// Versions that have a file size, a footer and a sum of their own.
    fn version(number: i64) -> Table {
        mart("a", &format!("SELECT {number} AS x FROM range({}) t(i)", 10 + number % 3))
    }

    fn sum_of(number: i64) -> i64 {
        number * (10 + number % 3)
    }

    #[test]
    fn snapshots_share_a_database_and_each_reads_its_own_versions() {
        let checked = Gate::new().expect("a gate").check(SUMS).expect("it passes");
        let other = mart("b", "SELECT 7::BIGINT AS y");
        let mut newest = open(vec![version(0), other.clone()]);
        let places = PLACES_PER_MART * 2 + MORE_PLACES;
        let mut alive = Vec::new();
        // Each place is used again and again.
        for number in 0..5 * places as i64 {
            assert_eq!(sums(&newest, &checked), [sum_of(number), 7]);
            let next = after(&newest, vec![version(number + 1), other.clone()]);
            assert!(are_together(&newest, &next), "version {number}");
            alive.push((number, std::mem::replace(&mut newest, next)));
            // Some are asked again when later ones are there, with what they have prepared.
            if alive.len() == 5 {
                for (number, instance) in alive.drain(..) {
                    assert_eq!(sums(&instance, &checked), [sum_of(number), 7]);
                }
            }
        }
    }

    #[test]
    fn what_is_not_alike_has_another_database() {
        let a = || mart("a", "SELECT 1 AS x");
        let first = open(vec![a()]);
        let same = after(&first, vec![a()]);
        assert!(are_together(&first, &same));
        let more_rows = 2 * ROWS_PER_THREAD;
        for (what, tables) in [
            ("another mart", vec![a(), mart("b", "SELECT 1 AS x")]),
            ("another name", vec![mart("b", "SELECT 1 AS x")]),
            ("another column", vec![mart("a", "SELECT 1 AS y")]),
            ("another type", vec![mart("a", "SELECT 1::BIGINT AS x")]),
            ("a schema of its own", vec![Table { schema: Some("own".to_owned()), ..a() }]),
            ("an empty model", vec![Table { empty: true, ..a() }]),
        ] {
            assert!(!are_together(&first, &after(&first, tables)), "{what}");
        }
        first.shared().note(&DuckError("Binder Error: no such column".to_owned()));
        assert!(are_together(&first, &after(&first, vec![a()])));
        first.shared().note(&DuckError("INTERNAL Error: a bug".to_owned()));
        assert!(!are_together(&first, &after(&first, vec![a()])), "one that is broken");
        let two_threads = Settings { threads: 2, ..settings() };
        let first = Instance::open(&Runtime::start(two_threads), vec![a()]).expect("an instance");
        let larger = after(&first, vec![Table { rows: more_rows, ..a() }]);
        assert!(!are_together(&first, &larger), "one that wants two threads");
        assert!(are_together(&larger, &after(&larger, vec![Table { rows: more_rows, ..a() }])));
    }

    #[test]
    fn places_are_free_again_once_nobody_reads_them() {
        let a = || mart("a", "SELECT 1 AS x");
        let first = open(vec![a()]);
        let free = |instance: &Instance| {
            let places = instance.shared().places.as_ref().expect("it has places");
            places.free.lock().expect("no panic").len()
        };
        let all = free(&first) + 1;
        let mut kept = vec![Arc::clone(&first)];
        while free(&first) > 0 {
            let next = after(kept.last().expect("one"), vec![a()]);
            assert!(are_together(&first, &next));
            kept.push(next);
        }
        let beyond = after(&first, vec![a()]);
        assert!(!are_together(&first, &beyond), "there was no place");
        let session = kept[1].session().expect("a session");
        kept.truncate(1);
        assert_eq!(free(&first), all - 2, "one is read");
        drop(session);
        assert_eq!(free(&first), all - 1);
        let places = first.shared().places.as_ref().expect("it has places");
        for path in places.paths() {
            let path = path.into_string().expect("UTF-8");
            let file = std::fs::read_link(path).expect("a descriptor");
            assert_eq!(file.to_str(), Some("/memfd:martd-place (deleted)"), "a pin is left");
        }
        assert!(are_together(&first, &after(&first, vec![a()])));
    }
}
