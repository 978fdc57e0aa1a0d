//! Parameter values: what a client binds, typed from its JSON.

use duckdb::ffi;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A value that can be bound to a parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A truth value.
    Boolean(bool),
    /// An integer of at most 64 bits.
    BigInt(i64),
    /// An integer of at most 128 bits.
    HugeInt(i128),
    /// A number with a fraction or an exponent.
    Double(f64),
    /// A text. DuckDB casts it where the statement asks for a date, a UUID and the like.
    Varchar(String),
    /// A value that DuckDB casts to a type before it is bound.
    Typed {
        /// What is cast.
        value: Box<Value>,
        /// To which type.
        ty: TypeName,
    },
    /// A list whose elements share a type.
    List {
        /// The type of every element that is not NULL.
        element: ElementType,
        /// The elements, converted to that type.
        values: Vec<Value>,
    },
}

/// The name of a type that a parameter can be given: one of DuckDB's scalar types, with its
/// precision, or a list of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TypeName(String);

/// Scalar types of parameters. A name becomes a part of a statement, so no other is let through.
const TYPE_NAMES: &[&str] = &[
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "VARCHAR",
    "BLOB",
    "UUID",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "TIMESTAMP WITH TIME ZONE",
    "INTERVAL",
];

impl TypeName {
    /// The name as DuckDB reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<TypeName> for String {
    fn from(name: TypeName) -> Self {
        name.0
    }
}

/// What another process sends is checked as what a client sends.
impl TryFrom<String> for TypeName {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl std::str::FromStr for TypeName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let unknown = || ValueError::UnknownType(text.to_owned());
        let name = text.trim().to_ascii_uppercase();
        let scalar = name.trim_end_matches("[]");
        let (base, precision) = match scalar.split_once('(') {
            Some((base, rest)) => (base, Some(rest.strip_suffix(')').ok_or_else(unknown)?)),
            None => (scalar, None),
        };
        let is_number = |part: &str| part.trim().parse::<u8>().is_ok();
        let precise = precision.is_none_or(|precision| {
            base == "DECIMAL"
                && precision.split(',').count() <= 2
                && precision.split(',').all(is_number)
        });
        if TYPE_NAMES.contains(&base) && precise { Ok(Self(name)) } else { Err(unknown()) }
    }
}

/// The type of a list's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElementType {
    /// An empty list, or one of NULLs: it fits wherever a list fits.
    Null,
    /// BOOLEAN
    Boolean,
    /// BIGINT
    BigInt,
    /// HUGEINT
    HugeInt,
    /// DOUBLE
    Double,
    /// VARCHAR
    Varchar,
}

impl ElementType {
    pub(super) fn type_id(self) -> ffi::duckdb_type {
        match self {
            Self::Null => ffi::DUCKDB_TYPE_DUCKDB_TYPE_SQLNULL,
            Self::Boolean => ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN,
            Self::BigInt => ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT,
            Self::HugeInt => ffi::DUCKDB_TYPE_DUCKDB_TYPE_HUGEINT,
            Self::Double => ffi::DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE,
            Self::Varchar => ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR,
        }
    }

    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Boolean(_) => Self::Boolean,
            Value::BigInt(_) => Self::BigInt,
            Value::HugeInt(_) => Self::HugeInt,
            Value::Double(_) => Self::Double,
            Value::Varchar(_) => Self::Varchar,
            Value::List { .. } | Value::Typed { .. } => return None,
        })
    }

    /// The type that holds both, if there is one.
    fn unify(self, other: Self) -> Option<Self> {
        use ElementType::{BigInt, Double, HugeInt, Null};
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Null, a) | (a, Null) => Some(a),
            (BigInt, HugeInt) | (HugeInt, BigInt) => Some(HugeInt),
            (BigInt | HugeInt, Double) | (Double, BigInt | HugeInt) => Some(Double),
            _ => None,
        }
    }
}

/// A JSON value that cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// An object: DuckDB structs cannot be parameters here.
    #[error("is an object; use a scalar or a list of scalars")]
    Object,
    /// A list in a list.
    #[error("is a list in a list; use a list of scalars")]
    NestedList,
    /// A list of, say, numbers and texts.
    #[error("is a list of different types; its elements must all be of one type")]
    MixedList,
    /// A type that parameters cannot have.
    #[error(
        "has the type {0}, which parameters cannot have; use a scalar type of DuckDB, or a list of one"
    )]
    UnknownType(String),
    /// A number that no type of DuckDB holds.
    #[error("is the number {0}, which is out of range")]
    OutOfRange(String),
}

impl Value {
    /// Types a JSON value: integers BIGINT or HUGEINT, other numbers DOUBLE, texts VARCHAR.
    pub fn from_json(json: &Json) -> Result<Self, ValueError> {
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Boolean(*b),
            Json::Number(number) => Self::from_number(&number.to_string())?,
            Json::String(text) => Self::Varchar(text.clone()),
            Json::Array(items) => Self::from_list(items)?,
            Json::Object(_) => return Err(ValueError::Object),
        })
    }

    /// This value, cast to a type when it is bound.
    pub fn typed(self, ty: TypeName) -> Self {
        Self::Typed { value: Box::new(self), ty }
    }

    fn from_number(text: &str) -> Result<Self, ValueError> {
        let out_of_range = || ValueError::OutOfRange(text.to_owned());
        if text.contains(['.', 'e', 'E']) {
            let number: f64 = text.parse().map_err(|_| out_of_range())?;
            return if number.is_finite() { Ok(Self::Double(number)) } else { Err(out_of_range()) };
        }
        if let Ok(number) = text.parse() {
            return Ok(Self::BigInt(number));
        }
        text.parse().map(Self::HugeInt).map_err(|_| out_of_range())
    }

    fn from_list(items: &[Json]) -> Result<Self, ValueError> {
        let mut values = items.iter().map(Self::from_json).collect::<Result<Vec<_>, _>>()?;
        let mut element = ElementType::Null;
        for value in &values {
            let own = ElementType::of(value).ok_or(ValueError::NestedList)?;
            element = element.unify(own).ok_or(ValueError::MixedList)?;
        }
        for value in &mut values {
            value.widen(element);
        }
        Ok(Self::List { element, values })
    }

    fn widen(&mut self, element: ElementType) {
        *self = match (&*self, element) {
            (Self::BigInt(i), ElementType::HugeInt) => Self::HugeInt(i128::from(*i)),
            (Self::BigInt(i), ElementType::Double) => Self::Double(*i as f64),
            (Self::HugeInt(i), ElementType::Double) => Self::Double(*i as f64),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Result<Value, ValueError> {
        Value::from_json(&serde_json::from_str(json).expect("test JSON parses"))
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(value("9223372036854775807"), Ok(Value::BigInt(i64::MAX)));
        assert_eq!(value("9223372036854775808"), Ok(Value::HugeInt(1 << 63)));
        assert_eq!(value("1.5"), Ok(Value::Double(1.5)));
        assert_eq!(value("1e400"), Err(ValueError::OutOfRange("1e+400".to_owned())));
    }

    #[test]
    fn only_names_of_types_are_types() {
        for good in
            ["date", "DECIMAL(18,2)", "decimal(18, 2)[]", "uuid[]", "timestamp with time zone"]
        {
            assert!(good.parse::<TypeName>().is_ok(), "{good}");
        }
        for bad in ["", "[]", "date)", "decimal(18", "varchar(1); drop", "mood", "date, 1", "int'"]
        {
            let error = bad.parse::<TypeName>().expect_err(bad);
            assert_eq!(error, ValueError::UnknownType(bad.to_owned()));
        }
    }

    #[test]
    fn a_list_has_the_type_that_holds_its_elements() {
        assert_eq!(
            value("[1, null, 2.5]"),
            Ok(Value::List {
                element: ElementType::Double,
                values: vec![Value::Double(1.0), Value::Null, Value::Double(2.5)],
            })
        );
        assert_eq!(value("[]"), Ok(Value::List { element: ElementType::Null, values: vec![] }));
        assert_eq!(value(r#"[1, "a"]"#), Err(ValueError::MixedList));
        assert_eq!(value("[[1]]"), Err(ValueError::NestedList));
    }

    #[test]
    fn values_survive_the_way_to_another_process() {
        let value = Value::List {
            element: ElementType::HugeInt,
            values: vec![Value::HugeInt(i128::MIN), Value::Double(0.1), Value::Null],
        };
        let value = value.typed("decimal(38,2)[]".parse().expect("a type"));
        let sent = serde_json::to_string(&value).expect("it is written");
        assert_eq!(serde_json::from_str::<Value>(&sent).expect("it is read"), value);
        assert!(serde_json::from_str::<TypeName>("\"date); drop\"").is_err());
    }
}
