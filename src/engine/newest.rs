//! The newest value of a column: when a mart was loaded, whatever its file's time says.

use jiff::Timestamp;

use super::instance::Instance;
use crate::duck::quote_identifier;

/// As DuckDB names them. A DATE is the midnight that it begins with, a TIMESTAMP is UTC.
const WITHOUT_ZONE: [&str; 5] =
    ["DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"];
const WITH_ZONE: &str = "TIMESTAMP WITH TIME ZONE";

impl Instance {
    /// The newest value of a column of a mart; `None` when no row has one. Infinite values do not
    /// count. Reads the whole column, so it is not for the request path.
    ///
    /// # Errors
    /// Why the column does not tell.
    pub fn newest(&self, mart: &str, column: &str) -> Result<Option<Timestamp>, String> {
        let number = self.tables().iter().position(|table| table.name == mart);
        let number = number.ok_or_else(|| format!("there is no mart {mart}"))?;
        let table = &self.tables()[number];
        let Some(found) = table.columns.iter().find(|c| c.name.eq_ignore_ascii_case(column)) else {
            return Err(format!("the mart has no column {column}"));
        };
        let name = quote_identifier(&found.name);
        let value = match found.ty.as_str() {
            WITH_ZONE => name,
            ty if WITHOUT_ZONE.contains(&ty) => format!("{name}::TIMESTAMP"),
            ty => return Err(format!("column {column} is {ty}, neither a date nor a timestamp")),
        };
        if table.empty {
            return Ok(None);
        }
        let sql = format!(
            "SELECT epoch_us(max({value}) FILTER (isfinite({value}))) FROM {}",
            self.source(number)
        );
        let micros = self
            .number(&sql)
            .map_err(|error| format!("the newest value of {column} cannot be had: {error}"))?;
        let time = micros.map(Timestamp::from_microsecond).transpose();
        time.map_err(|_| format!("the newest value of {column} is beyond the year 9999"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Settings;
    use crate::engine::query::tests::mart;

    fn newest(select: &str) -> Result<Option<String>, String> {
        let table = mart("a", &format!("SELECT {select}"));
        let settings = Settings {
            memory_bytes: 64 << 20,
            threads: 1,
            temp_dir: None,
            time_zone: "Pacific/Auckland".to_owned(),
            schemas: vec!["mart".to_owned()],
            scoping: None,
        };
        let instance = Instance::open(&settings, vec![table]).expect("an instance");
        instance.newest("a", "AT").map(|time| time.map(|time| time.to_string()))
    }

    fn at(text: &str) -> Result<Option<String>, String> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn every_kind_of_time_has_a_newest_value_whatever_the_session_time_zone() {
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
            assert_eq!(newest(select), at(expected), "{select}");
        }
    }

    #[test]
    fn without_a_value_there_is_none_and_without_a_column_the_reason() {
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
