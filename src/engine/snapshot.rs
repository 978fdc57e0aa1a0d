//! A snapshot as the engine serves it: views over attached tables, in a catalog of its own.
//!
//! The catalog is immutable once it is there: every view is made before the first statement, for DDL
//! beside statements of the same catalog fails now and then. With scoping there are two catalogs, one of
//! all rows and one of the scope's; a connection uses the one that its request may see.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use super::database::{Attached, LockedDatabase};
use super::introspection;
use super::pg_catalog::{Catalogs, PgCatalog};
use super::protocol::{QueryError, SnapshotSpec, TableSpec};
use super::scope::{self, SCOPE_VARIABLE, Scope, Scoping};
use crate::duck::{Connection, DuckError, ErrorKind, Statement, Value, quote_identifier};
use crate::sql_gate::{self, Dialect, TableName, ValidatedStatement};
use parking_lot::Mutex;

/// Statements that a connection keeps prepared.
const PREPARED_PER_CONNECTION: usize = 64;
/// Connections that a snapshot keeps for later statements.
const IDLE_CONNECTIONS: usize = 64;

/// An attached table of a mart.
#[derive(Debug)]
pub(super) struct SnapshotTable {
    pub(super) spec: TableSpec,
    pub(super) attached: Arc<Attached>,
}

/// What answers statements over one snapshot.
#[derive(Debug)]
pub(super) struct EngineSnapshot {
    // Fields drop in this order: no connection may be left when what it uses is detached.
    idle: Mutex<Vec<Pooled>>,
    id: String,
    all_rows: Attached,
    /// The views of the scope's rows, where rows are scoped.
    scoped: Option<Attached>,
    tables: Vec<SnapshotTable>,
    /// The marts by (schema, name) in lower case, as DuckDB compares identifiers.
    names: HashMap<(String, String), usize>,
    scoping: Option<Scoping>,
    schemas: Vec<String>,
    /// What clients of PostgreSQL are told, where they are served…
    catalogs: Option<Arc<Catalogs>>,
    /// …of all marts, and of those that a scope may read.
    catalog: [OnceLock<PgCatalog>; 2],
    database: Arc<LockedDatabase>,
}

impl EngineSnapshot {
    /// Makes the catalog of a snapshot over its tables, which are in the order of the specification.
    pub(super) fn open(
        database: &Arc<LockedDatabase>,
        schemas: &[String],
        scoping: Option<&Scoping>,
        spec: SnapshotSpec,
        attached: Vec<Arc<Attached>>,
    ) -> Result<Self, DuckError> {
        let tables: Vec<SnapshotTable> = spec
            .tables
            .into_iter()
            .zip(attached)
            .map(|(spec, attached)| SnapshotTable { spec, attached })
            .collect();
        let all_rows = make_views(database, schemas, &tables, None)?;
        let scoped = match scoping {
            Some(scoping) => Some(make_views(database, schemas, &tables, Some(scoping))?),
            None => None,
        };
        let mut names = HashMap::new();
        for (index, table) in tables.iter().enumerate() {
            for schema in schemas.iter().chain(&table.spec.schema) {
                let key = (schema.to_ascii_lowercase(), table.spec.name.to_ascii_lowercase());
                names.entry(key).or_insert(index);
            }
        }
        Ok(Self {
            idle: Mutex::default(),
            id: spec.id,
            all_rows,
            scoped,
            tables,
            names,
            scoping: scoping.cloned(),
            schemas: schemas.to_vec(),
            catalogs: None,
            catalog: Default::default(),
            database: Arc::clone(database),
        })
    }

    /// The same, with catalogs for clients of PostgreSQL.
    pub(super) fn with_catalogs(self, catalogs: Option<Arc<Catalogs>>) -> Self {
        Self { catalogs, ..self }
    }

    /// The name by which clients know it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The mart of this name.
    pub(super) fn table(&self, mart: &str) -> Option<&SnapshotTable> {
        self.tables.iter().find(|table| table.spec.name == mart)
    }

    /// Rejects a statement unless it names marts of this snapshot alone, which may be read.
    ///
    /// # Errors
    /// [`QueryError::Sql`] and [`QueryError::NotAllowed`].
    pub(super) fn check(&self, statement: &ValidatedStatement) -> Result<(), QueryError> {
        for name in &statement.tables {
            let table = &self.tables[self.resolve(name, statement.dialect)?];
            if let Some(scoping) = &self.scoping {
                let not_allowed =
                    |message| QueryError::NotAllowed { message, position: name.position };
                scoping.check(&table.spec).map_err(not_allowed)?;
            }
        }
        Ok(())
    }

    fn resolve(&self, name: &TableName, dialect: Dialect) -> Result<usize, QueryError> {
        let lower = name.name.to_ascii_lowercase();
        // Clients of PostgreSQL take the first of their search path for granted.
        let first = self.schemas.first().filter(|_| dialect == Dialect::Postgres);
        let schema = name.schema.as_ref().or(first);
        let key = schema.map(|schema| (schema.to_ascii_lowercase(), lower.clone()));
        if let Some(found) = key.and_then(|key| self.names.get(&key)) {
            return Ok(*found);
        }
        let distance = |table: &&SnapshotTable| {
            strsim::damerau_levenshtein(&table.spec.name.to_ascii_lowercase(), &lower)
        };
        let similar = self.tables.iter().min_by_key(distance);
        let hint = match (
            similar.filter(|table| distance(table) <= lower.len() / 3),
            self.schemas.first(),
        ) {
            (Some(table), Some(schema)) => {
                format!("Did you mean \"{schema}.{}\"?", table.spec.name)
            }
            _ => "SHOW TABLES lists the marts.".to_owned(),
        };
        let position = name.position;
        Err(match sql_gate::looks_like_a_file(name) {
            Some(why) => {
                let message = format!("{} is not a mart, and {why}. {hint}", name.name);
                QueryError::NotAllowed { message, position }
            }
            None => {
                let name = &name.name;
                let message =
                    format!("Catalog Error: Table with name {name} does not exist!\n{hint}");
                QueryError::Sql { message, position }
            }
        })
    }

    /// A connection that sees the rows of a scope. Give it back with [`give_back`](Self::give_back)
    /// when its statement has ended.
    pub(super) fn connection(&self, scope: &Scope) -> Result<Pooled, DuckError> {
        let idle = {
            let mut idle = self.idle.lock();
            // One that was last used with this scope may have the statement prepared.
            let same = idle.iter().rposition(|pooled| pooled.scope.as_ref() == Some(scope));
            same.map(|index| idle.remove(index)).or_else(|| idle.pop())
        };
        let mut pooled = match idle {
            Some(pooled) => pooled,
            None => Pooled {
                connection: self.database.connect()?,
                scope: None,
                prepared: VecDeque::new(),
            },
        };
        if pooled.scope.as_ref() != Some(scope) {
            self.enter(&mut pooled, scope)?;
        }
        Ok(pooled)
    }

    /// A connection to the catalog of the marts that a scope may read. It is not kept.
    pub(super) fn catalog_connection(&self, scope: &Scope) -> Result<Pooled, DuckError> {
        let scoping = self.scoping.as_ref().filter(|_| matches!(scope, Scope::Value(_)));
        let catalog = &self.catalog[usize::from(scoping.is_some())];
        if catalog.get().is_none() {
            let connection = self.database.connect()?;
            let is_shown =
                |spec: &TableSpec| scoping.is_none_or(|scoping| scoping.check(spec).is_ok());
            let shown = self.tables.iter().filter(|table| is_shown(&table.spec));
            let marts = shown.map(|SnapshotTable { spec, attached }| {
                let statement = connection.prepare(&format!("FROM {}", attached.table()))?;
                Ok((spec, statement.columns()))
            });
            let marts = marts.collect::<Result<Vec<_>, DuckError>>()?;
            let Some(catalogs) = &self.catalogs else {
                let message = "Internal Error: there are no catalogs";
                return Err(DuckError::new(ErrorKind::Io, message));
            };
            let made = catalogs.make(&marts)?;
            let _ = catalog.set(made); // another request may have made it
        }
        let connection = catalog.wait().connect()?;
        Ok(Pooled { connection, scope: None, prepared: VecDeque::new() })
    }

    /// Makes a connection see the rows of a scope. The value is bound, never pasted.
    fn enter(&self, pooled: &mut Pooled, scope: &Scope) -> Result<(), DuckError> {
        pooled.scope = None;
        let (views, value) = match (scope, &self.scoped) {
            (Scope::Value(value), Some(scoped)) => (scoped, Value::Varchar(value.clone())),
            _ => (&self.all_rows, Value::Null),
        };
        pooled.connection.execute(&format!("USE {}", views.schema(&self.schemas[0])))?;
        let mut set = pooled.connection.prepare(&format!("SET VARIABLE {SCOPE_VARIABLE} = ?"))?;
        set.bind(1, &value)?;
        set.execute()?;
        pooled.scope = Some(scope.clone());
        Ok(())
    }

    /// Drops the statements that idle connections keep, with what those hold.
    pub(super) fn forget_prepared(&self) {
        let mut idle = self.idle.lock();
        idle.iter_mut().for_each(|pooled| pooled.prepared.clear());
    }

    /// Takes a connection back.
    pub(super) fn give_back(&self, pooled: Pooled) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(pooled);
        }
    }
}

/// Makes a catalog with a view for each name of each table, of the scope's rows with `scoping`. A
/// table that cannot be read under scoping has no view.
fn make_views(
    database: &Arc<LockedDatabase>,
    schemas: &[String],
    tables: &[SnapshotTable],
    scoping: Option<&Scoping>,
) -> Result<Attached, DuckError> {
    let views = database.attach_views()?;
    let mut sql = String::new();
    for schema in schemas.iter().chain(tables.iter().filter_map(|table| table.spec.schema.as_ref()))
    {
        let _ = write!(sql, "CREATE SCHEMA IF NOT EXISTS {};", views.schema(schema));
    }
    for SnapshotTable { spec, attached } in tables {
        let source = attached.table();
        let query = match scoping {
            _ if spec.is_empty => format!("FROM {source} WHERE false"),
            None => format!("FROM {source}"),
            Some(scoping) => match scoping.column_of(spec) {
                Some(column) => scope::scoped(&source, column),
                None if scoping.check(spec).is_ok() => format!("FROM {source}"),
                None => continue,
            },
        };
        for schema in schemas.iter().chain(&spec.schema) {
            let (schema, name) = (views.schema(schema), quote_identifier(&spec.name));
            let _ = write!(sql, "CREATE VIEW IF NOT EXISTS {schema}.{name} AS {query};");
        }
    }
    let shown = tables.iter().map(|table| &table.spec);
    let shown = shown.filter(|spec| scoping.is_none_or(|scoping| scoping.check(spec).is_ok()));
    sql.push_str(&introspection::statements(&views, &schemas[0], shown));
    database.transaction(&sql)?;
    Ok(views)
}

/// A connection of a snapshot, and what it has at hand.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) connection: Connection,
    /// The scope that it sees.
    scope: Option<Scope>,
    /// Prepared statements, the last used at the end.
    prepared: VecDeque<PlannedStatement>,
}

/// A statement that is kept. A plan holds the value of a scope, so it is kept for the scope that it
/// was prepared under.
#[derive(Debug)]
pub(super) struct PlannedStatement {
    sql: Box<str>,
    scope: Option<Scope>,
    pub(super) statement: Statement,
}

impl Pooled {
    /// A statement that was kept, or that is prepared anew.
    pub(super) fn prepare(&mut self, sql: &str) -> Result<PlannedStatement, DuckError> {
        let is_it = |kept: &PlannedStatement| *kept.sql == *sql && kept.scope == self.scope;
        if let Some(index) = self.prepared.iter().position(is_it)
            && let Some(kept) = self.prepared.remove(index)
        {
            return Ok(kept);
        }
        let statement = self.connection.prepare(sql)?;
        Ok(PlannedStatement { sql: sql.into(), scope: self.scope.clone(), statement })
    }

    /// Keeps a statement for the next time.
    pub(super) fn keep(&mut self, statement: PlannedStatement) {
        if self.prepared.len() == PREPARED_PER_CONNECTION {
            self.prepared.pop_front();
        }
        self.prepared.push_back(statement);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{database, open, open_in, validate};

    fn numbers(snapshot: &EngineSnapshot, scope: &Scope, sql: &str) -> Result<Vec<i64>, DuckError> {
        let pooled = snapshot.connection(scope)?;
        let mut statement = pooled.connection.prepare(sql)?;
        let mut rows = statement.execute()?;
        let mut numbers = Vec::new();
        while let Some(chunk) = rows.next_chunk()? {
            numbers.extend_from_slice(chunk.column(0).values::<i64>());
        }
        drop(rows);
        drop(statement);
        snapshot.give_back(pooled);
        Ok(numbers)
    }

    #[test]
    fn each_snapshot_has_its_own_marts_under_every_schema() {
        let database = database();
        let one = open_in(&database, &[("a", "SELECT 1::BIGINT AS x")], None);
        let two = open_in(&database, &[("a", "SELECT 2::BIGINT AS x")], None);
        for (snapshot, expected) in [(&one, 1), (&two, 2), (&one, 1)] {
            for sql in ["SELECT x FROM mart.a", "SELECT x FROM \"Other \"\"one\"\"\".A"] {
                assert_eq!(numbers(snapshot, &Scope::AllRows, sql), Ok(vec![expected]), "{sql}");
            }
        }
        drop(one);
        assert_eq!(numbers(&two, &Scope::AllRows, "SELECT x FROM mart.a"), Ok(vec![2]));
    }

    #[test]
    fn a_connection_sees_the_rows_of_its_scope_alone() {
        let scoping = Scoping { column: "u".to_owned(), unscoped: vec!["all".to_owned()] };
        let marts = [
            ("own", "SELECT range::BIGINT AS x, range % 3 AS U FROM range(9)"),
            ("all", "SELECT range::BIGINT AS x FROM range(4)"),
            ("other", "SELECT 1::BIGINT AS x"),
        ];
        let snapshot = open_in(&database(), &marts, Some(&scoping));
        let value = |value: &str| Scope::Value(value.to_owned());
        let own = "SELECT x FROM mart.own ORDER BY x";
        for (scope, expected) in [
            (value("1"), vec![1, 4, 7]),
            (Scope::AllRows, (0..9).collect()),
            (value("2"), vec![2, 5, 8]),
            (value("x"), vec![]),
            (value("1"), vec![1, 4, 7]),
        ] {
            assert_eq!(numbers(&snapshot, &scope, own), Ok(expected), "{scope:?}");
        }
        let all = numbers(&snapshot, &value("1"), "SELECT x FROM mart.all ORDER BY x");
        assert_eq!(all, Ok(vec![0, 1, 2, 3]));
        let refused = snapshot.check(&validate("SELECT x FROM mart.other"));
        assert!(matches!(refused, Err(QueryError::NotAllowed { .. })), "{refused:?}");
        assert!(numbers(&snapshot, &value("1"), "SELECT x FROM mart.other").is_err(), "no view");
    }

    #[test]
    fn a_name_that_is_no_mart_is_told_apart_from_a_file() {
        let snapshot = open(&[("orders", "SELECT 1 AS x"), ("x.csv", "SELECT 1 AS x")]);
        let check = |sql: &str| snapshot.check(&validate(sql));
        assert_eq!(check("FROM mart.Orders, mart.\"x.csv\""), Ok(()));
        let unknown = check("FROM orders").expect_err("no schema").to_string();
        assert!(unknown.contains("Did you mean \"mart.orders\"?"), "{unknown}");
        assert!(matches!(check("FROM 'y.csv'"), Err(QueryError::NotAllowed { .. })));
        assert!(matches!(check("FROM nothing"), Err(QueryError::Sql { .. })));
    }

    /// The database with no validator before it, as if a statement had got around that.
    #[test]
    fn a_locked_database_reads_nothing_but_its_tables() {
        let snapshot = open(&[("a", "SELECT 42::BIGINT AS x")]);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let written = dir.path().join("written").display().to_string();
        let other = dir.path().join("other.csv");
        std::fs::write(&other, "a\n1\n").expect("a file");
        let other = other.display();
        let run = |sql: &str| numbers(&snapshot, &Scope::AllRows, sql);
        assert_eq!(run("SELECT x FROM mart.a"), Ok(vec![42]));
        let catalog = snapshot.tables[0].attached.catalog();
        for sql in [
            format!("COPY (SELECT 1) TO '{written}'"),
            format!("EXPORT DATABASE '{written}'"),
            format!("ATTACH '{written}'"),
            format!("SELECT * FROM read_csv('{other}')"),
            format!("SELECT * FROM '{other}'"),
            format!("INSERT INTO {catalog}.main.t VALUES (1)"),
            "SELECT * FROM read_csv('/etc/passwd')".to_owned(),
            "SELECT * FROM read_text('/proc/self/environ')".to_owned(),
            "SELECT * FROM glob('/*')".to_owned(),
            "INSTALL httpfs".to_owned(),
            "LOAD httpfs".to_owned(),
            "SET enable_external_access = true".to_owned(),
            "SET allowed_paths = ['/']".to_owned(),
            "SET memory_limit = '1TB'".to_owned(),
            "SET GLOBAL threads = 1000".to_owned(),
            "RESET lock_configuration".to_owned(),
        ] {
            assert!(run(&sql).is_err(), "{sql}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_dropped_table_stays_for_running_statements() {
        let database = database();
        let count = |database: &Arc<LockedDatabase>| {
            let connection = database.connect().unwrap();
            let mut statement = connection
                .prepare(
                    "SELECT count(*) FROM duckdb_databases() WHERE database_name LIKE 'martd%'",
                )
                .unwrap();
            let chunk = statement.execute().unwrap().next_chunk().unwrap().unwrap();
            chunk.column(0).values::<i64>()[0]
        };
        let snapshot = Arc::new(open_in(&database, &[("a", "SELECT 1::BIGINT AS x")], None));
        assert_eq!(count(&database), 2);
        let running = Arc::clone(&snapshot);
        drop(snapshot);
        let read = numbers(&running, &Scope::AllRows, "SELECT x FROM mart.a");
        assert_eq!((read, count(&database)), (Ok(vec![1]), 2));
        drop(running);
        assert_eq!(count(&database), 0);
    }
}
