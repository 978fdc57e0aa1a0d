//! The newest value of a column: when a mart was loaded, whatever its file's time says.

use jiff::Timestamp;

use super::snapshot::EngineSnapshot;
use crate::duck::{Connection, DuckError, quote_identifier};

/// As DuckDB names them. A DATE is the midnight that it begins with, a TIMESTAMP is UTC.
const WITHOUT_ZONE: [&str; 5] =
    ["DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"];
const WITH_ZONE: &str = "TIMESTAMP WITH TIME ZONE";

/// Why there is no newest value.
#[derive(Debug)]
pub(super) enum NewestError {
    /// The column does not tell.
    Column(String),
    /// DuckDB failed.
    Duck(DuckError),
}

impl EngineSnapshot {
    /// The newest value of a column of a mart; `None` when no row has one. Infinite values do not
    /// count. Reads the whole column, so it is not for the request path.
    ///
    /// # Errors
    /// See [`NewestError`].
    pub(super) fn newest(
        &self,
        connection: &Connection,
        mart: &str,
        column: &str,
    ) -> Result<Option<Timestamp>, NewestError> {
        let no = |reason: String| NewestError::Column(reason);
        let table = self.table(mart).ok_or_else(|| no(format!("there is no mart {mart}")))?;
        let columns = &table.spec.columns;
        let found = columns.iter().find(|known| known.name.eq_ignore_ascii_case(column));
        let found = found.ok_or_else(|| no(format!("the mart has no column {column}")))?;
        let name = quote_identifier(&found.name);
        let value = match found.ty.as_str() {
            WITH_ZONE => name,
            ty if WITHOUT_ZONE.contains(&ty) => format!("{name}::TIMESTAMP"),
            ty => {
                return Err(no(format!("column {column} is {ty}, neither a date nor a timestamp")));
            }
        };
        if table.spec.is_empty {
            return Ok(None);
        }
        let sql = format!(
            "SELECT epoch_us(max({value}) FILTER (isfinite({value}))) FROM {}",
            table.attached.table()
        );
        let micros = number(connection, &sql).map_err(NewestError::Duck)?;
        let time = micros.map(Timestamp::from_microsecond).transpose();
        time.map_err(|_| no(format!("the newest value of {column} is beyond the year 9999")))
    }
}

/// The one number that a statement of martd's own answers.
fn number(connection: &Connection, sql: &str) -> Result<Option<i64>, DuckError> {
    let mut statement = connection.prepare(sql)?;
    let chunk = statement.execute()?.next_chunk()?;
    Ok(chunk.and_then(|chunk| {
        let column = chunk.column(0);
        (!column.is_null(0)).then(|| column.values::<i64>()[0])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Scope;
    use crate::engine::tests::open;

    fn newest(select: &str) -> Result<Option<String>, String> {
        let snapshot = open(&[("a", &format!("SELECT {select}"))]);
        let pooled = snapshot.connection(&Scope::AllRows).expect("a connection");
        match snapshot.newest(&pooled.connection, "a", "AT") {
            Ok(time) => Ok(time.map(|time| time.to_string())),
            Err(NewestError::Column(reason)) => Err(reason),
            Err(NewestError::Duck(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn every_kind_of_time_has_a_newest_value() {
        for (select, expected) in [
            ("unnest(['2026-01-01'::DATE, '2026-02-01', NULL]) AS at", "2026-02-01T00:00:00Z"),
            ("'2026-02-01 10:00:00.5'::TIMESTAMP AS at", "2026-02-01T10:00:00.5Z"),
            ("'2026-02-01 10:00:00'::TIMESTAMP_S AS at", "2026-02-01T10:00:00Z"),
            ("'2026-02-01 10:00:00'::TIMESTAMP_NS AS at", "2026-02-01T10:00:00Z"),
            ("'2026-02-01 10:00:00+02'::TIMESTAMPTZ AS at", "2026-02-01T08:00:00Z"),
            (
                "unnest(['2026-02-01 10:00'::TIMESTAMP, 'infinity']) AS \"At\"",
                "2026-02-01T10:00:00Z",
            ),
        ] {
            assert_eq!(newest(select), Ok(Some(expected.to_owned())), "{select}");
        }
    }

    #[test]
    fn a_column_without_values_or_missing_has_no_newest() {
        for nothing in
            ["NULL::DATE AS at", "1 AS x, NULL::DATE AS at", "'infinity'::TIMESTAMP AS at"]
        {
            assert_eq!(newest(nothing), Ok(None), "{nothing}");
        }
        let of = |select| newest(select).expect_err(select);
        assert_eq!(of("1 AS x"), "the mart has no column AT");
        assert_eq!(of("'2026' AS at"), "column AT is VARCHAR, neither a date nor a timestamp");
        assert!(of("'123456-01-01'::DATE AS at").contains("beyond the year 9999"));
    }
}
