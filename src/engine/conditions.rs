//! What a statement's conditions and its scope say of the vectors of a decoded mart.
//!
//! Only what DuckDB can compare in one way is turned into a [`Test`]; all else is left to it.

use jiff::civil::{Date, DateTime};
use uuid::Uuid;

use super::decoded::{Decoded, Test};
use super::gate::{Comparison, Condition, OperandValue};
use super::query::Parameters;
use super::types::Type;
use super::value::Value;

/// A value to compare with, as it is written or bound.
#[derive(Debug, Clone, Copy)]
enum Given<'a> {
    Text(&'a str),
    Integer(i64),
}

/// What is known of the rows of marts that a statement reads, by the number of the mart.
#[derive(Debug)]
pub(super) struct Known {
    /// What holds for every row that matters.
    pub(super) tests: Vec<(usize, Vec<Test>)>,
    /// Whether the tests are all that its conditions and its scope ask for.
    pub(super) is_all: bool,
}

/// What the conditions of a statement say of a mart's rows, and whether it is all they say.
pub(super) fn tests(
    decoded: &Decoded,
    conditions: &[Condition],
    parameters: &Parameters,
) -> (Vec<Test>, bool) {
    let (mut all, mut is_all) = (Vec::new(), true);
    for condition in conditions {
        let tests = test(decoded, condition, parameters);
        is_all &= !tests.is_empty();
        all.extend(tests);
    }
    (all, is_all)
}

/// A number of rows that a statement asks for.
pub(super) fn count(value: &OperandValue, parameters: &Parameters) -> Option<u64> {
    match value {
        OperandValue::Integer(count) => u64::try_from(*count).ok(),
        OperandValue::Parameter(name) => match parameters.get(name)? {
            Value::BigInt(count) => u64::try_from(*count).ok(),
            _ => None,
        },
        OperandValue::Text(_) => None,
    }
}

/// What a scope says of a mart's rows: that this column, cast from this text, has this value.
pub(super) fn scope_test(decoded: &Decoded, column: &str, value: &str) -> Option<Test> {
    let column = decoded.column_named(column)?;
    let kind = decoded.kind(column);
    let given = match kind {
        Type::Varchar | Type::Uuid => Given::Text(value),
        // DuckDB reads more as an integer than what it writes.
        _ => Given::Integer(value.parse().ok().filter(|i: &i64| i.to_string() == value)?),
    };
    Some(Test::Equals { column, value: stored(kind, given)? })
}

fn test(decoded: &Decoded, condition: &Condition, parameters: &Parameters) -> Vec<Test> {
    let Some(column) = decoded.column_named(&condition.column) else { return Vec::new() };
    let kind = decoded.kind(column);
    let operand = &condition.operand;
    let given = match &operand.value {
        OperandValue::Text(text) => Some(Given::Text(text)),
        OperandValue::Integer(integer) => Some(Given::Integer(*integer)),
        // Without a cast a text that is bound stays a text, whatever it is compared with.
        OperandValue::Parameter(name) => match parameters.get(name) {
            Some(Value::Varchar(text)) if *kind == Type::Varchar || operand.cast.is_some() => {
                Some(Given::Text(text))
            }
            Some(Value::BigInt(integer)) => Some(Given::Integer(*integer)),
            _ => None,
        },
    };
    // Cast to another type than the column's, it may be the column that DuckDB casts.
    let casts_alike = operand.cast.as_ref().is_none_or(|cast| *cast == kind.to_string());
    let Some(given) = given.filter(|_| casts_alike) else { return Vec::new() };
    let mut tests = Vec::new();
    if let Some(number) = number(kind, given) {
        let bounds = match condition.comparison {
            Comparison::Equal => Some((number, number)),
            Comparison::LessOrEqual => Some((i64::MIN, number)),
            Comparison::GreaterOrEqual => Some((number, i64::MAX)),
            Comparison::Less => number.checked_sub(1).map(|below| (i64::MIN, below)),
            Comparison::Greater => number.checked_add(1).map(|above| (above, i64::MAX)),
        };
        // Nothing is below the least number.
        let (least, greatest) = bounds.unwrap_or((i64::MAX, i64::MIN));
        tests.push(Test::Within { column, least, greatest });
    }
    if condition.comparison == Comparison::Equal {
        tests.extend(stored(kind, given).map(|value| Test::Equals { column, value }));
    }
    tests
}

/// The integer that DuckDB stores for this value of a column of this type.
fn number(kind: &Type, given: Given<'_>) -> Option<i64> {
    const EPOCH: Date = Date::constant(1970, 1, 1);
    match (kind, given) {
        (
            Type::TinyInt
            | Type::SmallInt
            | Type::Integer
            | Type::BigInt
            | Type::UTinyInt
            | Type::USmallInt
            | Type::UInteger,
            Given::Integer(integer),
        ) => Some(integer),
        (Type::Date, Given::Text(text)) => {
            let date: Date = text.parse().ok().filter(|_| is_plain_date(text))?;
            Some(date.duration_since(EPOCH).as_hours() / 24)
        }
        (Type::Timestamp, Given::Text(text)) => {
            let time: DateTime = text.parse().ok().filter(|_| is_plain_time(text))?;
            let micros = time.duration_since(EPOCH.to_datetime(jiff::civil::Time::MIN)).as_micros();
            i64::try_from(micros).ok()
        }
        _ => None,
    }
}

/// The bytes that DuckDB stores for this value of a column of this type.
fn stored(kind: &Type, given: Given<'_>) -> Option<Box<[u8]>> {
    Some(match (kind, given) {
        (Type::Varchar, Given::Text(text)) => text.as_bytes().into(),
        (Type::Uuid, Given::Text(text)) => {
            let uuid = Uuid::try_parse(text).ok()?;
            // Other spellings may be no UUID to DuckDB, or be compared as texts.
            if uuid.as_hyphenated().to_string() != text {
                return None;
            }
            // Its first bit is flipped, so that it sorts.
            Box::new((uuid.as_u128() ^ 1 << 127).to_le_bytes())
        }
        _ => {
            let number = number(kind, given)?;
            let bytes = number.to_le_bytes();
            let width = kind.width()?;
            // What the type cannot hold is no value of the column; DuckDB may say so.
            let (low, high) = match kind {
                Type::UTinyInt | Type::USmallInt | Type::UInteger => {
                    (0, (1_i64 << (8 * width)) - 1)
                }
                _ => (i64::MIN >> (64 - 8 * width), i64::MAX >> (64 - 8 * width)),
            };
            (low..=high).contains(&number).then(|| bytes[..width].into())?
        }
    })
}

/// `2024-01-31`, and nothing else that may be a date.
fn is_plain_date(text: &str) -> bool {
    has_shape(text, "0000-00-00")
}

/// `2024-01-31 12:30:00`, at midnight without the time.
fn is_plain_time(text: &str) -> bool {
    is_plain_date(text) || has_shape(text, "0000-00-00 00:00:00")
}

fn has_shape(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(own, shape)| match shape {
            b'0' => own.is_ascii_digit(),
            _ => own == shape,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Gate;
    use crate::engine::decoded::tests::decode;

    fn mart() -> Decoded {
        decode(
            "SELECT 'u' AS text, 1::TINYINT AS tiny, 1::UINTEGER AS u32, DATE '2024-01-31' AS day,
                    TIMESTAMP '2024-01-31 00:00:00' AS moment, uuid() AS id, 1.5 AS price",
        )
    }

    fn tests_of(clause: &str, parameters: Vec<Value>) -> Vec<Test> {
        let sql = format!("SELECT * FROM mart.x WHERE {clause}");
        let checked = Gate::new().expect("a gate").check(&sql).expect(clause);
        tests(&mart(), &checked.conditions, &Parameters::Positional(parameters)).0
    }

    fn within(column: usize, least: i64, greatest: i64) -> Test {
        Test::Within { column, least, greatest }
    }

    fn equals(column: usize, value: &[u8]) -> Test {
        Test::Equals { column, value: value.into() }
    }

    const DAY: i64 = 19_753;
    const MICROS: i64 = 86_400_000_000;

    #[test]
    fn a_condition_is_a_test_of_what_is_stored() {
        let text = |text: &str| vec![Value::Varchar(text.to_owned())];
        let id = "00112233-4455-6677-8899-aabbccddeeff";
        let stored = (0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128 ^ 1 << 127).to_le_bytes();
        for (clause, parameters, expected) in [
            ("TEXT = 'u'", vec![], vec![equals(0, b"u")]),
            ("text = ?", text("u"), vec![equals(0, b"u")]),
            ("tiny = 5", vec![], vec![within(1, 5, 5), equals(1, &[5])]),
            ("tiny = 300", vec![], vec![within(1, 300, 300)]),
            ("u32 > ?", vec![Value::BigInt(7)], vec![within(2, 8, i64::MAX)]),
            (
                "u32 = 4294967295",
                vec![],
                vec![within(2, 4_294_967_295, 4_294_967_295), equals(2, &[255; 4])],
            ),
            ("day < '2024-01-31'", vec![], vec![within(3, i64::MIN, DAY - 1)]),
            ("day >= CAST(? AS DATE)", text("2024-01-31"), vec![within(3, DAY, i64::MAX)]),
            ("day = DATE '1969-12-31'", vec![], vec![within(3, -1, -1), equals(3, &[255; 4])]),
            (
                "moment <= TIMESTAMP '2024-01-31 00:00:01'",
                vec![],
                vec![within(4, i64::MIN, DAY * MICROS + 1_000_000)],
            ),
            ("moment >= '2024-01-31'", vec![], vec![within(4, DAY * MICROS, i64::MAX)]),
            (&format!("id = '{id}'"), vec![], vec![equals(5, &stored)]),
            ("id = ?::UUID", text(id), vec![equals(5, &stored)]),
        ] {
            assert_eq!(tests_of(clause, parameters), expected, "{clause}");
        }
    }

    #[test]
    fn what_duckdb_may_compare_otherwise_is_left_to_it() {
        let text = |text: &str| vec![Value::Varchar(text.to_owned())];
        for (clause, parameters) in [
            ("text = 5", vec![]),
            ("text > 'a'", vec![]),
            ("nothing = 5", vec![]),
            ("price = 1", vec![]),
            ("tiny = '5'", vec![]),
            ("tiny = ?::BIGINT", vec![Value::BigInt(5)]),
            ("tiny = ?", vec![Value::Null]),
            ("tiny = ?", vec![]),
            ("day >= ?", text("2024-01-31")),
            ("day >= ?::TIMESTAMP", text("2024-01-31")),
            ("day >= '2024-1-31'", vec![]),
            ("day >= '2024-02-31'", vec![]),
            ("day >= 'infinity'", vec![]),
            ("moment >= DATE '2024-01-31'", vec![]),
            ("moment >= '2024-01-31T00:00:00Z'", vec![]),
            ("moment >= '2024-01-31 00:00:00+02'", vec![]),
            ("id = '00112233445566778899aabbccddeeff'", vec![]),
            ("id = '00112233-4455-6677-8899-AABBCCDDEEFF'", vec![]),
        ] {
            assert_eq!(tests_of(clause, parameters), [], "{clause}");
        }
    }

    #[test]
    fn a_scope_is_a_test_of_its_column() {
        let mart = mart();
        assert_eq!(scope_test(&mart, "text", "u"), Some(equals(0, b"u")));
        assert_eq!(scope_test(&mart, "Tiny", "-5"), Some(equals(1, &[251])));
        for (column, value) in [
            ("tiny", "5 "),
            ("tiny", "05"),
            ("tiny", "1e1"),
            ("id", "x"),
            ("price", "1"),
            ("day", "1"),
        ] {
            assert_eq!(scope_test(&mart, column, value), None, "{column} {value}");
        }
    }
}
