//! Prepared statements, the rows that they give, and the chunks that rows come in.

use std::sync::Arc;

use duckdb::ffi;

use super::chunk::Chunk;
use super::connection::{Connection, Session};
use super::error::{DuckError, ErrorKind};
use super::raw_value::RawValue;
use super::types::{ResultColumn, Type, owned_text};
use super::value::{TypeName, Value};

/// A prepared statement.
#[derive(Debug)]
pub struct Statement {
    raw: ffi::duckdb_prepared_statement,
    session: Arc<Session>,
}

// SAFETY: a prepared statement may move between threads; it is used by one at a time (`&mut`).
unsafe impl Send for Statement {}

impl Statement {
    /// # Safety
    /// `raw` is a live statement of the session, which the caller owns and gives up.
    pub(super) unsafe fn from_raw(
        raw: ffi::duckdb_prepared_statement,
        session: Arc<Session>,
    ) -> Self {
        Self { raw, session }
    }

    /// The names of the parameters in order: `start` for `$start`, `1` for `$1` or the first `?`.
    pub fn parameter_names(&self) -> Vec<String> {
        // SAFETY: a live statement; each name is DuckDB's, freed after it was copied.
        unsafe {
            (1..=ffi::duckdb_nparams(self.raw))
                .map(|index| {
                    let name = ffi::duckdb_parameter_name(self.raw, index);
                    if name.is_null() { index.to_string() } else { owned_text(name.cast_mut()) }
                })
                .collect()
        }
    }

    /// The types of the parameters in order, of those that the statement determines.
    pub fn parameter_types(&self) -> Vec<Option<Type>> {
        // SAFETY: a live statement, numbers of its parameters; each type is freed after it was read.
        unsafe {
            (1..=ffi::duckdb_nparams(self.raw))
                .map(|number| {
                    let raw = ffi::duckdb_param_logical_type(self.raw, number);
                    let ty = (!raw.is_null()).then(|| Type::take(raw))?;
                    (ty != Type::Null && ty.unsupported().is_none()).then_some(ty)
                })
                .collect()
        }
    }

    /// Names and types of the columns that it gives.
    pub fn columns(&self) -> Vec<ResultColumn> {
        // SAFETY: a live statement, indices below its count; names and types are freed after they
        // were read.
        unsafe {
            (0..ffi::duckdb_prepared_statement_column_count(self.raw))
                .map(|index| ResultColumn {
                    name: owned_text(
                        ffi::duckdb_prepared_statement_column_name(self.raw, index).cast_mut(),
                    ),
                    ty: Type::take(ffi::duckdb_prepared_statement_column_logical_type(
                        self.raw, index,
                    )),
                })
                .collect()
        }
    }

    /// Binds the parameter of this number, counted from 1.
    ///
    /// # Errors
    /// When there is no such parameter, or DuckDB cannot cast the value to the type that it asks for.
    pub fn bind(&mut self, number: usize, value: &Value) -> Result<(), DuckError> {
        let raw_value = match value {
            Value::Typed { value, ty } => self.cast(value, ty)?,
            plain => RawValue::new(plain),
        };
        if raw_value.0.is_null() {
            let message = "Out of Memory Error: no room for the value";
            return Err(DuckError::new(ErrorKind::OutOfMemory, message));
        }
        // SAFETY: a live statement and value; DuckDB copies the value, and checks the number.
        unsafe {
            let state = ffi::duckdb_bind_value(self.raw, number as u64, raw_value.0);
            if state == ffi::DuckDBSuccess {
                Ok(())
            } else {
                Err(DuckError::of_text(ffi::duckdb_prepare_error(self.raw)))
            }
        }
    }

    /// Has DuckDB cast a value, as the statement itself could have.
    fn cast(&self, value: &Value, ty: &TypeName) -> Result<RawValue, DuckError> {
        let connection = Connection::of_session(&self.session);
        let mut cast = connection.prepare(&format!("SELECT CAST(? AS {})", ty.as_str()))?;
        cast.bind(1, value)?;
        let mut rows = cast.execute()?;
        let ty = rows.columns()[0].ty.clone();
        let chunk = rows.next_chunk()?.ok_or_else(|| {
            DuckError::new(ErrorKind::Statement, "Conversion Error: a cast gave no row")
        })?;
        RawValue::read(&ty, &chunk.column(0), 0)
    }

    /// Starts the statement; rows are computed as they are fetched.
    ///
    /// # Errors
    /// DuckDB's, when the statement fails before its first row.
    pub fn execute(&mut self) -> Result<Rows<'_>, DuckError> {
        // SAFETY: zeroed is the C API's own initial state; a failed execution leaves a result that
        // carries the error and is destroyed with `Rows`.
        unsafe {
            let mut raw: ffi::duckdb_result = std::mem::zeroed();
            let state = ffi::duckdb_execute_prepared_streaming(self.raw, &raw mut raw);
            let mut rows = Rows { raw, columns: Vec::new(), ended: false, statement: self };
            if state != ffi::DuckDBSuccess {
                return Err(DuckError::of_result(&mut rows.raw));
            }
            rows.columns = ResultColumn::all_of(&mut rows.raw);
            Ok(rows)
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_prepare(&raw mut self.raw) };
    }
}

/// The rows of a running statement.
#[derive(Debug)]
pub struct Rows<'s> {
    raw: ffi::duckdb_result,
    columns: Vec<ResultColumn>,
    /// Whether there is nothing more to fetch. To fetch again would be answered with another error than
    /// the one that ended the statement.
    ended: bool,
    statement: &'s mut Statement,
}

impl Rows<'_> {
    /// Names and types of the columns.
    pub fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    /// The next chunk of at most 2,048 rows, and at least one; `None` at the end, and after an error.
    ///
    /// # Errors
    /// DuckDB's, when the statement fails or is interrupted.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, DuckError> {
        if self.ended {
            return Ok(None);
        }
        // SAFETY: a live result; the chunk is ours from here on.
        unsafe {
            let raw = ffi::duckdb_fetch_chunk(self.raw);
            if !raw.is_null() {
                let chunk = Chunk::from_raw(raw, Arc::clone(&self.statement.session));
                if chunk.rows() > 0 {
                    return Ok(Some(chunk));
                }
            }
            self.ended = true;
            if ffi::duckdb_result_error(&raw mut self.raw).is_null() {
                Ok(None)
            } else {
                Err(DuckError::of_result(&mut self.raw))
            }
        }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_result(&raw mut self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duck::{Database, RawHugeInt, RawInterval, RawListEntry};

    fn connect() -> Connection {
        Database::open_in_memory(&[]).unwrap().connect().unwrap()
    }

    /// The only row of a statement with these parameters, as DuckDB's types and its chunk.
    fn row(sql: &str, parameters: &[Value]) -> (Vec<String>, Chunk) {
        let mut statement = connect().prepare(sql).unwrap();
        for (number, value) in (1..).zip(parameters) {
            statement.bind(number, value).unwrap();
        }
        let mut rows = statement.execute().unwrap();
        let types = rows.columns().iter().map(|column| column.ty.to_string()).collect();
        (types, rows.next_chunk().unwrap().unwrap())
    }

    #[test]
    fn numbers_arrive_as_they_are() {
        let (types, chunk) = row(
            "SELECT true, -1::TINYINT, -2::SMALLINT, -3, -4::BIGINT, -5::HUGEINT, 1::UTINYINT,
                2::USMALLINT, 3::UINTEGER, 4::UBIGINT, 5::UHUGEINT, 1.5::FLOAT, 2.5::DOUBLE,
                -1.2::DECIMAL(4,1), 1.23::DECIMAL(9,2), 1.23::DECIMAL(18,2), -1.5::DECIMAL(38,1)",
            &[],
        );
        assert_eq!(types[13..], ["DECIMAL(4,1)", "DECIMAL(9,2)", "DECIMAL(18,2)", "DECIMAL(38,1)"]);
        let huge = |index| chunk.column(index).values::<RawHugeInt>()[0].bits();
        assert_eq!(chunk.column(0).values::<u8>(), [1]);
        assert_eq!(chunk.column(1).values::<i8>(), [-1]);
        assert_eq!(chunk.column(2).values::<i16>(), [-2]);
        assert_eq!(chunk.column(3).values::<i32>(), [-3]);
        assert_eq!(chunk.column(4).values::<i64>(), [-4]);
        assert_eq!(huge(5).cast_signed(), -5);
        assert_eq!(chunk.column(6).values::<u8>(), [1]);
        assert_eq!(chunk.column(7).values::<u16>(), [2]);
        assert_eq!(chunk.column(8).values::<u32>(), [3]);
        assert_eq!(chunk.column(9).values::<u64>(), [4]);
        assert_eq!(huge(10), 5);
        assert_eq!(chunk.column(11).values::<f32>(), [1.5]);
        assert_eq!(chunk.column(12).values::<f64>(), [2.5]);
        let decimals = [(13, 4, -12), (14, 9, 123), (15, 18, 123), (16, 38, -15)];
        for (index, width, digits) in decimals {
            assert_eq!(chunk.column(index).decimal(0, width), digits);
        }
    }

    #[test]
    fn texts_and_times_arrive_as_they_are() {
        let (types, chunk) = row(
            "SELECT 'short', 'longer than twelve', '{}'::JSON, '\\xFF'::BLOB, 'b'::ENUM('a', 'b'),
                DATE '1970-01-02', TIME '00:00:01', TIMESTAMP '1970-01-01 00:00:01',
                TIMESTAMP_S '1970-01-01 00:00:02', TIMESTAMP_MS '1970-01-01 00:00:01',
                TIMESTAMP_NS '1970-01-01 00:00:01', TIMESTAMPTZ '1970-01-01 00:00:01+00',
                TO_MONTHS(14) + TO_DAYS(3), '00000000-0000-0000-0000-000000000001'::UUID, NULL",
            &[],
        );
        let expected = ["JSON", "BLOB", "ENUM('a', 'b')", "DATE", "TIME", "TIMESTAMP"];
        assert_eq!(types[2..8], expected);
        let texts: Vec<_> = (0..4).map(|index| chunk.column(index).bytes(0)).collect();
        assert_eq!(texts, [&b"short"[..], b"longer than twelve", b"{}", b"\xff"]);
        assert_eq!(chunk.column(4).enum_index(0, 2), 1);
        assert_eq!(chunk.column(5).values::<i32>(), [1]);
        let ticks: Vec<_> = (6..12).map(|index| chunk.column(index).values::<i64>()[0]).collect();
        assert_eq!(ticks, [1_000_000, 1_000_000, 2, 1_000, 1_000_000_000, 1_000_000]);
        let interval = RawInterval { months: 14, days: 3, micros: 0 };
        assert_eq!(chunk.column(12).values::<RawInterval>(), [interval]);
        assert_eq!(chunk.column(13).values::<RawHugeInt>()[0].bits(), 1 << 127 | 1);
        assert!(chunk.column(14).is_null(0));
    }

    #[test]
    fn nested_values_arrive_as_they_are() {
        let (types, chunk) = row(
            "SELECT [1, NULL, 3], [1, 2]::INTEGER[2], {a: 1, \"B c\": 'x'}, map(['k'], [7]),
                union_value(n := 5), [[1], [], [2, 3]]",
            &[],
        );
        let expected = [
            "INTEGER[]",
            "INTEGER[2]",
            "STRUCT(a INTEGER, \"B c\" VARCHAR)",
            "MAP(VARCHAR, INTEGER)",
            "UNION(n INTEGER)",
            "INTEGER[][]",
        ];
        assert_eq!(types, expected);
        let [list, array, fields, map, union, lists] =
            [0, 1, 2, 3, 4, 5].map(|index| chunk.column(index));
        assert_eq!(list.values::<RawListEntry>(), [RawListEntry { offset: 0, length: 3 }]);
        assert!(list.list_child().is_null(1) && list.list_child().values::<i32>()[2] == 3);
        assert_eq!(array.array_child(2).values::<i32>(), [1, 2]);
        assert_eq!(fields.struct_child(0).values::<i32>(), [1]);
        assert_eq!(fields.struct_child(1).bytes(0), b"x");
        assert_eq!(map.list_child().struct_child(0).bytes(0), b"k");
        assert_eq!(map.list_child().struct_child(1).values::<i32>(), [7]);
        assert_eq!(union.struct_child(0).values::<u8>(), [0]);
        assert_eq!(union.struct_child(1).values::<i32>(), [5]);
        assert_eq!(lists.list_child().list_child().values::<i32>(), [1, 2, 3]);
    }

    #[test]
    fn parameters_are_bound_by_type() {
        let typed =
            |text: &str, ty: &str| Value::Varchar(text.to_owned()).typed(ty.parse().unwrap());
        let list = Value::from_json(&serde_json::json!([1, null, 2])).unwrap();
        let parameters = [
            Value::HugeInt(1 << 90),
            Value::Double(0.5),
            typed("2026-01-31", "DATE"),
            typed("1.5", "DECIMAL(18,2)"),
            typed("[a, b]", "VARCHAR[]"),
            typed("00000000-0000-0000-0000-000000000001", "UUID"),
            list,
            Value::Null,
        ];
        let sql = "SELECT concat_ws('|', $1, $2, $3 + 1, $4, $5, $6, $7, $8)";
        let (_, chunk) = row(sql, &parameters);
        let text = String::from_utf8_lossy(chunk.column(0).bytes(0)).into_owned();
        let uuid = "00000000-0000-0000-0000-000000000001";
        let expected =
            format!("1237940039285380274899124224|0.5|2026-02-01|1.50|[a, b]|{uuid}|[1, NULL, 2]");
        assert_eq!(text.replace(" 00:00:00", ""), expected);
    }

    #[test]
    fn parameters_and_columns_have_their_names() {
        let statement = connect().prepare("SELECT $end - $start AS days").unwrap();
        let mut names = statement.parameter_names();
        names.sort();
        assert_eq!(names, ["end", "start"]);
        let statement = connect().prepare("SELECT 1 AS a, 'x' AS b").unwrap();
        let columns = [("a", Type::Integer), ("b", Type::Varchar)]
            .map(|(name, ty)| ResultColumn { name: name.to_owned(), ty });
        assert_eq!(statement.columns(), columns);
    }

    #[test]
    fn a_parameter_that_is_none_is_refused() {
        let mut statement = connect().prepare("SELECT ?").unwrap();
        for number in [0, 2, usize::MAX] {
            let error = statement.bind(number, &Value::Null).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Statement, "{error}");
        }
    }

    #[test]
    fn all_rows_arrive_and_then_no_more() {
        let mut statement = connect().prepare("FROM range(5000)").unwrap();
        for _ in 0..2 {
            let mut rows = statement.execute().unwrap();
            let mut count = 0;
            while let Some(chunk) = rows.next_chunk().unwrap() {
                count += chunk.rows();
            }
            assert_eq!(count, 5000);
            assert!(rows.next_chunk().unwrap().is_none());
        }
    }

    #[test]
    fn after_an_error_there_are_no_more_rows() {
        let sql = "SELECT CASE WHEN range > 400000 THEN error('late') END FROM range(500000)";
        let mut statement = connect().prepare(sql).unwrap();
        let mut rows = statement.execute().unwrap();
        let error = std::iter::from_fn(|| rows.next_chunk().transpose()).find_map(Result::err);
        assert_eq!(error.expect("it fails").to_string(), "Invalid Input Error: late");
        assert!(rows.next_chunk().unwrap().is_none());
    }
}
