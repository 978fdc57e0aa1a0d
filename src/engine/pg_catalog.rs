//! What clients of PostgreSQL can learn of a snapshot: catalogs in a database that has no data, each filled
//! with the marts that its reader may see.
//!
//! A catalog is made when it is first asked for: [`PG_CATALOG`] says what is in it, this module which marts.

use std::fmt::Write as _;
use std::sync::Arc;

use super::database::{Attached, LockedDatabase};
use super::introspection::DATABASE;
use super::protocol::{ProcessSettings, TableSpec};
use crate::duck::{Connection, DuckError, ResultColumn, quote_literal};
use crate::encode::postgres::{self, SentAs};
use crate::limits::CATALOGS_BYTES;
use crate::sql_gate::PG_CATALOG;

/// The numbers below are PostgreSQL's own objects'.
const FIRST_OID: u32 = 16_384;

/// The database that catalogs are made in.
#[derive(Debug)]
pub(super) struct Catalogs {
    database: Arc<LockedDatabase>,
    schema: String,
    time_zone: String,
}

impl Catalogs {
    /// Opens it, as [`LockedDatabase::open`] does.
    pub(super) fn open(settings: &ProcessSettings) -> Result<Self, DuckError> {
        let own = ProcessSettings { memory_bytes: CATALOGS_BYTES, ..settings.clone() };
        let schema = settings.schemas[0].clone();
        let time_zone = settings.time_zone.clone();
        Ok(Self { database: LockedDatabase::open(&own)?, schema, time_zone })
    }

    /// From here on it can read nothing.
    pub(super) fn lock(&self) -> Result<(), DuckError> {
        self.database.lock_away()
    }

    /// Makes a catalog of these marts.
    pub(super) fn make(
        &self,
        marts: &[(&TableSpec, Vec<ResultColumn>)],
    ) -> Result<PgCatalog, DuckError> {
        let attached = self.database.attach_views()?;
        let inner = |text: &str| text.replace('\'', "''");
        let mut sql = PG_CATALOG
            .replace("{database}", DATABASE)
            .replace("{schema}", &inner(&self.schema))
            .replace("{time_zone}", &inner(&self.time_zone));
        let mut oids = Vec::new();
        for (spec, columns) in marts {
            let oid = oid(&spec.name, &oids);
            oids.push(oid);
            add(&mut sql, oid, spec, columns);
        }
        let catalog = PgCatalog { attached, database: Arc::clone(&self.database) };
        catalog.connect()?.execute(&format!("BEGIN; {sql} COMMIT"))?;
        Ok(catalog)
    }
}

/// One catalog.
#[derive(Debug)]
pub(super) struct PgCatalog {
    attached: Attached,
    database: Arc<LockedDatabase>,
}

impl PgCatalog {
    /// A connection that sees this one.
    pub(super) fn connect(&self) -> Result<Connection, DuckError> {
        let connection = self.database.connect()?;
        connection.execute(&format!("USE {}", self.attached.schema("main")))?;
        Ok(connection)
    }
}

/// A mart's number: the same in each snapshot, for a client asks about one in several statements.
fn oid(mart: &str, taken: &[u32]) -> u32 {
    let [a, b, c, d, ..] = *blake3::hash(mart.as_bytes()).as_bytes();
    let mut oid = FIRST_OID + u32::from_le_bytes([a, b, c, d]) % (i32::MAX as u32 - 2 * FIRST_OID);
    while taken.contains(&oid) {
        oid += 1;
    }
    oid
}

fn add(sql: &mut String, oid: u32, spec: &TableSpec, columns: &[ResultColumn]) {
    let (name, count) = (quote_literal(&spec.name), columns.len());
    let _ = write!(sql, "INSERT INTO marts VALUES ({oid}, {name}, {count});");
    for (column, number) in columns.iter().zip(1..) {
        let SentAs { oid: ty, size, modifier, .. } = postgres::sent_as(&column.ty, false);
        let name = quote_literal(&column.name);
        let _ = write!(
            sql,
            "INSERT INTO mart_columns VALUES ({oid}, {name}, {ty}, {size}, {number}, {modifier});"
        );
    }
    let number_of = |name: &str| columns.iter().position(|column| column.name == name);
    let of_columns = spec.meanings.iter();
    let of_columns = of_columns.filter_map(|(name, text)| Some((number_of(name)? + 1, text)));
    let of_mart = (!spec.description.is_empty()).then_some((0, &spec.description));
    for (number, text) in of_mart.into_iter().chain(of_columns) {
        let text = quote_literal(text);
        let _ = write!(sql, "INSERT INTO mart_descriptions VALUES ({oid}, {number}, {text});");
    }
}
