//! The first rows of a mart in an order, found without DuckDB.
//!
//! Rows are compared by their [ranks](Order::ranks): what they are ordered by, packed into one number
//! as far as there is room. Where chunks are known to lie beyond the last row of a page, they are not
//! looked at, so a page of rows that are stored by what they are ordered by takes a few chunks of
//! however many there are.

use std::cmp::Ordering;

use super::index::has_one_form;
use super::{CHUNK_ROWS, Chunk, Decoded, PLACE_BITS};
use crate::engine::gate;
use crate::engine::types::Type;
use crate::engine::vector::{RawHugeInt, Vector};

/// So many bits of a rank are enough to tell most rows apart that are equal in all before.
const ENOUGH_BITS: u32 = 16;

/// What rows are ordered by, which tells any two of them apart.
#[derive(Debug)]
pub(in crate::engine) struct Order {
    /// The last has each value once.
    keys: Vec<Key>,
    /// Whether few rows have a rank in common.
    pub(super) is_decisive: bool,
}

#[derive(Debug)]
struct Key {
    column: usize,
    descends: bool,
    nulls_first: bool,
}

impl Order {
    /// That of a listing. `None` where DuckDB has to order the rows: by a type that it compares in
    /// another way than by its bits or bytes, or where rows may be equal in all that they are ordered
    /// by, so that it is DuckDB's choice which of them a page has.
    pub(in crate::engine) fn of(mart: &Decoded, ordering: &gate::Ordering) -> Option<Self> {
        if !mart.has_short_numbers() {
            return None;
        }
        let deciding = mart.deciding_key(ordering)?;
        let key = |key: &gate::SortKey| {
            let column = mart.column_named(&key.column)?;
            Some(Key { column, descends: key.descends, nulls_first: key.nulls_first })
        };
        let mut keys = ordering.keys.iter().map(key).collect::<Option<Vec<Key>>>()?;
        keys.truncate(deciding + 1);
        let (last, others) = keys.split_last()?;
        let mut room = u128::BITS;
        for Key { column, .. } in others {
            room = room.saturating_sub(1 + bits(mart.kind(*column))?);
        }
        let is_text = |key: &Key| *mart.kind(key.column) == Type::Varchar;
        let is_decisive = room > ENOUGH_BITS && !keys.iter().any(is_text);
        bits(mart.kind(last.column)).map(|_| Self { keys, is_decisive })
    }

    /// Numbers that are in the order of these rows of a chunk. Two that are equal say nothing.
    fn ranks(&self, mart: &Decoded, chunk: &Chunk, rows: &[u32]) -> Vec<u128> {
        let mut ranks = vec![0; rows.len()];
        let mut room = u128::BITS;
        for key in &self.keys {
            if room < 2 {
                break;
            }
            let kind = mart.kind(key.column);
            let vector = chunk.column(key.column);
            let field = Field::of(key, kind, &mut room);
            match kind {
                Type::Varchar => {
                    for (rank, &row) in ranks.iter_mut().zip(rows) {
                        let is_null = vector.is_null(row as usize);
                        let text = (!is_null).then(|| first_bytes(vector.bytes(row as usize)));
                        *rank |= field.of_value(text);
                    }
                }
                _ => each_number(kind, &vector, rows, |place, number| {
                    let is_null = vector.is_null(rows[place] as usize);
                    ranks[place] |= field.of_value((!is_null).then_some(number));
                }),
            }
        }
        ranks
    }

    /// No row of a chunk has a lower rank, as far as it is known.
    pub(super) fn least_rank(&self, mart: &Decoded, chunk: usize) -> u128 {
        let first = &self.keys[0];
        let Some(bounds) = mart.bounds(first.column) else { return 0 };
        let has_nulls = !mart.chunks[chunk].memory(first.column).validity.is_null();
        let kind = mart.kind(first.column);
        let field = Field::of(first, kind, &mut { u128::BITS });
        if has_nulls && first.nulls_first {
            return field.of_value(None);
        }
        field.of_value(bounds[chunk].map(|(least, greatest)| {
            let bound = if first.descends { greatest } else { least };
            match kind {
                Type::UTinyInt | Type::USmallInt | Type::UInteger => bound as u128,
                _ => (i128::from(bound) + (1 << (field.width - 1))) as u128,
            }
        }))
    }

    fn compare_ranked(&self, mart: &Decoded, one: &(u128, u32), other: &(u128, u32)) -> Ordering {
        one.0.cmp(&other.0).then_with(|| self.compare(mart, one.1, other.1))
    }

    /// How two rows are ordered.
    fn compare(&self, mart: &Decoded, one: u32, other: u32) -> Ordering {
        let compare = |key: &Key| {
            let of = |number: u32| {
                let chunk = &mart.chunks[number as usize >> PLACE_BITS];
                let row = number & (CHUNK_ROWS - 1) as u32;
                Value::of(mart.kind(key.column), &chunk.column(key.column), row)
            };
            match (of(one), of(other)) {
                (Some(one), Some(other)) if key.descends => other.cmp(&one),
                (Some(one), Some(other)) => one.cmp(&other),
                // `None` is the least.
                (one, other) if key.nulls_first => one.is_some().cmp(&other.is_some()),
                (one, other) => one.is_none().cmp(&other.is_none()),
            }
        };
        self.keys.iter().map(compare).find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// The first rows of an order among those that it is shown.
#[derive(Debug)]
pub(super) struct First {
    pub(super) order: Order,
    /// How many are kept, at least one.
    most: usize,
    /// Ranks and numbers of rows, in no order.
    rows: Vec<(u128, u32)>,
    /// No row of a higher rank is among them.
    highest: u128,
}

impl First {
    pub(super) fn new(order: Order, most: usize) -> Self {
        Self { order, most, rows: Vec::new(), highest: u128::MAX }
    }

    /// Shows it these rows of a chunk.
    pub(super) fn show(&mut self, mart: &Decoded, chunk: usize, rows: &[u32]) {
        let ranks = self.order.ranks(mart, &mart.chunks[chunk], rows);
        let first = (chunk << PLACE_BITS) as u32;
        let shown = ranks.into_iter().zip(rows.iter().map(|row| first + row));
        self.rows.extend(shown.filter(|(rank, _)| *rank <= self.highest));
        // Later ones are dropped together, as to tell which costs as much as there are rows.
        let spare = if self.highest == u128::MAX { 0 } else { CHUNK_ROWS.max(self.most / 2) };
        if self.rows.len() > self.most + spare {
            self.drop_later(mart);
        }
    }

    /// Whether no row of a chunk, nor of one whose least rank is higher, can be among the first.
    pub(super) fn is_before(&self, mart: &Decoded, chunk: usize) -> bool {
        self.highest < self.order.least_rank(mart, chunk)
    }

    /// The numbers of the first rows, in order.
    pub(super) fn take(&mut self, mart: &Decoded) -> Vec<i64> {
        if self.rows.len() > self.most {
            self.drop_later(mart);
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_unstable_by(|one, other| self.order.compare_ranked(mart, one, other));
        rows.into_iter().map(|(_, number)| i64::from(number)).collect()
    }

    fn drop_later(&mut self, mart: &Decoded) {
        let Self { order, most, rows, highest } = self;
        let compare = |one: &_, other: &_| order.compare_ranked(mart, one, other);
        let (_, last, _) = rows.select_nth_unstable_by(*most - 1, compare);
        *highest = last.0;
        rows.truncate(*most);
    }
}

/// The bits of a rank that a key has.
struct Field {
    /// The bit that tells NULLs from values is this one.
    null_bit: u32,
    nulls_first: bool,
    /// The bits of a value, and those that are inverted.
    width: u32,
    inverted: u128,
}

impl Field {
    /// The highest of the bits that are left.
    fn of(key: &Key, kind: &Type, room: &mut u32) -> Self {
        let width = bits(kind).expect("rows are ordered by types that have it");
        let null_bit = *room - 1;
        *room = null_bit.saturating_sub(width);
        let inverted = if key.descends { u128::MAX >> (u128::BITS - width) } else { 0 };
        Self { null_bit, nulls_first: key.nulls_first, width, inverted }
    }

    fn of_value(&self, value: Option<u128>) -> u128 {
        let is_after = value.is_none() != self.nulls_first;
        let value = value.map_or(0, |value| value ^ self.inverted);
        // As much of it as there is room for.
        let value = match self.null_bit.checked_sub(self.width) {
            Some(spare) => value << spare,
            None => value >> (self.width - self.null_bit),
        };
        u128::from(is_after) << self.null_bit | value
    }
}

/// A value that is not NULL, to compare with another of its column.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Value<'d> {
    Number(u128),
    Text(&'d [u8]),
}

impl<'d> Value<'d> {
    fn of(kind: &Type, vector: &Vector<'d>, row: u32) -> Option<Self> {
        if vector.is_null(row as usize) {
            return None;
        }
        if *kind == Type::Varchar {
            return Some(Self::Text(vector.bytes(row as usize)));
        }
        let mut value = 0;
        each_number(kind, vector, &[row], |_, number| value = number);
        Some(Self::Number(value))
    }
}

/// The bits of a value, of a type that DuckDB orders by them or, a text, by its bytes.
fn bits(kind: &Type) -> Option<u32> {
    match kind {
        // Compared as DOUBLE.
        Type::Float => Some(u64::BITS),
        Type::Boolean | Type::Double | Type::Time => Some(u8::BITS * kind.width()? as u32),
        // That form is the one that it is ordered by.
        _ if has_one_form(kind) => Some(u8::BITS * kind.width()? as u32),
        _ => None,
    }
}

/// The first bytes of a text, with zeros behind a short one.
fn first_bytes(text: &[u8]) -> u128 {
    let mut first = [0; size_of::<u128>()];
    let length = text.len().min(first.len());
    first[..length].copy_from_slice(&text[..length]);
    u128::from_be_bytes(first)
}

/// A number that is in the order of this one. All that are no number are one, above all others.
fn ordered(value: f64) -> u64 {
    match value {
        value if value.is_nan() => u64::MAX,
        value if value < 0.0 => !value.to_bits(),
        value => value.to_bits() | 1 << 63,
    }
}

/// Numbers that are in the order of these values, which are no texts, with their places in `rows`. What
/// stands at a NULL is arbitrary.
fn each_number(kind: &Type, vector: &Vector<'_>, rows: &[u32], mut each: impl FnMut(usize, u128)) {
    macro_rules! each {
        ($ty:ty, $number:expr) => {{
            let values = vector.values::<$ty>();
            let number = $number;
            rows.iter()
                .enumerate()
                .for_each(|(place, &row)| each(place, number(values[row as usize])));
        }};
    }
    match (kind, kind.width()) {
        (Type::Boolean | Type::UTinyInt, _) => each!(u8, u128::from),
        (Type::USmallInt, _) => each!(u16, u128::from),
        (Type::UInteger, _) => each!(u32, u128::from),
        (Type::UBigInt, _) => each!(u64, u128::from),
        (Type::Float, _) => each!(f32, |value: f32| u128::from(ordered(value.into()))),
        (Type::Double, _) => each!(f64, |value: f64| u128::from(ordered(value))),
        (_, Some(1)) => each!(i8, |value: i8| u128::from(value as u8 ^ 1 << 7)),
        (_, Some(2)) => each!(i16, |value: i16| u128::from(value as u16 ^ 1 << 15)),
        (_, Some(4)) => each!(i32, |value: i32| u128::from(value as u32 ^ 1 << 31)),
        (_, Some(8)) => each!(i64, |value: i64| u128::from(value as u64 ^ 1 << 63)),
        _ => each!(RawHugeInt, |value: RawHugeInt| value.bits() ^ 1 << 127),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{decode, given};
    use super::super::{Lookup, Part, Test};
    use super::*;
    use crate::engine::Gate;

    /// Values of each type that rows are ordered by: the least and the greatest, some that are many
    /// rows', and NULL. `v` is a number below 60.
    fn columns() -> Vec<String> {
        let case = |ty: &str, special: &[String], others: &str| {
            let special =
                special.iter().zip(1..).map(|(value, v)| format!("WHEN {v} THEN {value}"));
            let special = special.collect::<Vec<_>>().join(" ");
            format!("(CASE v WHEN 0 THEN NULL {special} ELSE {others} END)::{ty}")
        };
        let mut columns =
            vec![case("BOOLEAN", &[], "v % 2 = 0"), case("UUID", &[], "md5('' || v)::UUID")];
        for (ty, bits) in [("TINYINT", 8), ("SMALLINT", 16), ("INTEGER", 32), ("BIGINT", 64)] {
            let bounds = [i64::MIN >> (64 - bits), i64::MAX >> (64 - bits)];
            columns.push(case(ty, &bounds.map(|bound| format!("({bound})::BIGINT")), "v - 30"));
            columns.push(case(&format!("U{ty}"), &[(u64::MAX >> (64 - bits)).to_string()], "v"));
        }
        for ty in ["FLOAT", "DOUBLE"] {
            let special = ["NaN", "-NaN", "inf", "-inf", "0.0", "-0.0", "1e-30", "-1e30"];
            let special = special.map(|value| format!("'{value}'::{ty}"));
            columns.push(case(ty, &special, "v / 4 - 10"));
        }
        for (width, scale) in [(4, 1), (9, 2), (18, 2), (38, 3)] {
            let greatest = ["9".repeat(width - scale), "9".repeat(scale)].join(".");
            let special = [format!("-{greatest}"), greatest];
            let ty = format!("DECIMAL({width}, {scale})");
            columns.push(case(&ty, &special.map(|value| format!("'{value}'::{ty}")), "v - 30"));
        }
        let infinite = ["infinity", "-infinity"];
        for ty in ["DATE", "TIMESTAMP", "TIMESTAMPTZ"] {
            let special = infinite.map(|value| format!("'{value}'::{ty}"));
            columns.push(case(
                ty,
                &special,
                &format!("(DATE '2000-01-01' + (v - 30) * 400)::{ty}"),
            ));
        }
        columns.push(case("TIMESTAMP_NS", &[], "DATE '2000-01-01' + (v - 30) * 400"));
        columns.push(case("TIME", &[], "TIME '00:00:00' + to_minutes(v)"));
        let texts = ["''", "'a' || chr(0)", "'a'", "'a' || chr(0) || 'b'", "'ä'", "'zz'"];
        columns.push(case("VARCHAR", &texts.map(str::to_owned), "'more than sixteen bytes ' || v"));
        columns
    }

    /// So many rows in no order, with an `id` each.
    fn mart(rows: usize) -> Arc<Decoded> {
        let columns = columns().into_iter().enumerate();
        let columns: Vec<String> = columns.map(|(i, column)| format!("{column} AS c{i}")).collect();
        let mart = decode(&format!(
            "SELECT id, (id / 8)::INTEGER AS rising, md5('' || id % 3)::UUID AS third, {} FROM (
                SELECT i AS id, (hash(i) % 60)::INTEGER AS v FROM range({rows}) t(i)
            ) ORDER BY hash(id + 1)",
            columns.join(", "),
        ));
        mart.make(0, Part::Uniqueness);
        Arc::new(mart)
    }

    fn order(mart: &Decoded, order: &str) -> Option<Order> {
        let sql = format!("SELECT id FROM mart.x ORDER BY {order}");
        let checked = Gate::new().expect("a gate").check(&sql).expect(order);
        Order::of(mart, checked.ordering.as_ref().expect("a listing"))
    }

    /// The ids of a page, and how many looks it took to find them.
    fn page(
        mart: &Arc<Decoded>,
        by: &str,
        tests: &[Test],
        page: (u64, u64),
    ) -> Option<(Vec<i64>, usize)> {
        let lookup = Lookup::new(mart, tests.to_vec(), page, usize::MAX)?;
        let mut lookup = lookup.ordered_by(order(mart, by)?)?;
        let (mut ids, mut looks) = (Vec::new(), 0);
        while let Some(chunk) = lookup.next_chunk(&[0]) {
            looks += usize::from(chunk.rows() == 0);
            assert!(chunk.rows() <= CHUNK_ROWS);
            ids.extend_from_slice(chunk.column(0).values::<i64>());
        }
        Some((ids, looks))
    }

    const PAGES: [(u64, u64); 3] = [(0, 10), (7, 700), (2_040, 9_999)];

    #[test]
    fn pages_are_those_that_duckdb_gives() {
        let orders = ["", "DESC", "NULLS FIRST", "DESC NULLS FIRST"];
        // By values alone, by their ranks, and of rows that have their ranks in common.
        for (rows, before) in [(1_000, ""), (5_000, ""), (1_000, "third, ")] {
            let mart = mart(rows);
            for column in 1..mart.columns().len() {
                let name = mart.columns()[column].name();
                let by = orders.map(|order| format!("{before}{name} {order}, id DESC"));
                let all = (0..).zip(&by).map(|(number, by)| {
                    format!(
                        "SELECT {number} AS n, row_number() OVER (ORDER BY {by}) AS r, id FROM MART"
                    )
                });
                let all = all.collect::<Vec<_>>().join(" UNION ALL ");
                let all =
                    given(&mart, false, &[], &format!("SELECT id FROM ({all}) ORDER BY n, r"));
                for (by, expected) in by.iter().zip(all.chunks(rows)) {
                    for (offset, limit) in PAGES {
                        let Some((ids, _)) = page(&mart, by, &[], (offset, limit)) else {
                            // Its rank has no room for the ids.
                            assert_eq!(mart.kind(column).width(), Some(16), "{by}");
                            assert!(rows > super::super::lookup::MOST_COMPARED);
                            continue;
                        };
                        let expected = expected.iter().skip(offset as usize).take(limit as usize);
                        assert!(ids.iter().eq(expected), "{by}, {:?}", mart.kind(column));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_is_one_value() {
        let nans = [f64::NAN, -f64::NAN, f64::from_bits(f64::NAN.to_bits() | 7)];
        assert_eq!(nans.map(ordered), [u64::MAX; 3]);
        assert_eq!(ordered(-0.0), ordered(0.0));
        let rising = [f64::NEG_INFINITY, -1.0, -f64::MIN_POSITIVE, 0.0, 1e-300, f64::INFINITY];
        assert!(rising.map(ordered).is_sorted_by(|one, other| one < other));
        assert!(ordered(f64::INFINITY) < u64::MAX);
    }

    #[test]
    fn chunks_that_lie_beyond_the_page_are_not_looked_at() {
        // More than are looked at at once.
        let mart = Arc::new(decode(
            "SELECT i AS id, (i // 100)::USMALLINT AS up, (-i // 100)::INTEGER AS down,
                    CASE WHEN i < 100_000 THEN i END AS late, CASE WHEN i >= 50_000 THEN i END AS early,
                    CASE WHEN i <> 70_000 THEN make_timestamp(i // 7) END AS hole,
                    i::DECIMAL(9, 2) AS price
             FROM range(140_000) t(i)",
        ));
        mart.make(0, Part::Uniqueness);
        for (by, looks) in [
            ("up, id", 1),
            ("up DESC, id", 1),
            ("down, id DESC", 1),
            ("down DESC, id DESC", 1),
            ("late DESC, id", 1),
            ("late DESC NULLS FIRST, id", 1),
            ("early, id", 1),
            ("early NULLS FIRST, id DESC", 1),
            ("hole DESC NULLS FIRST, id", 1),
            ("hole, id", 1),
            // Nothing is known of where these are.
            ("price, id", 2),
        ] {
            let (ids, own) = page(&mart, by, &[], (3, 2_000)).expect(by);
            let sql = format!("SELECT id FROM MART ORDER BY {by} LIMIT 2000 OFFSET 3");
            assert_eq!((ids, own), (given(&mart, false, &[], &sql), looks), "{by}");
        }
        let all = [Test::Within { column: 0, least: 0, greatest: i64::MAX }];
        assert_eq!(page(&mart, "id", &all, (65_000, 600)), None, "too many to put in order");
        let some = [Test::Within { column: 0, least: 69_990, greatest: 70_010 }];
        let (ids, _) = page(&mart, "hole NULLS FIRST, id", &some, (0, 9)).expect("few");
        assert_eq!(ids, [70_000, 69_990, 69_991, 69_992, 69_993, 69_994, 69_995, 69_996, 69_997]);
    }

    #[test]
    fn an_order_that_is_not_told_is_left_to_duckdb() {
        let mart = decode(
            "SELECT i AS id, 't' || i AS text, i % 5 AS few, INTERVAL 1 DAY * i AS span,
                    TIMETZ '00:00:00+01' AS zone, (i || '')::JSON AS document
             FROM range(100) t(i)",
        );
        assert!(order(&mart, "id").is_none() && order(&mart, "few").is_none());
        assert!(mart.take_wishes().eq([(0, Part::Uniqueness), (2, Part::Uniqueness)]));
        [0, 1, 2].into_iter().for_each(|column| mart.make(column, Part::Uniqueness));
        for (by, is_told, is_decisive) in [
            ("id", true, true),
            ("id DESC, nothing", false, false),
            ("id, span", true, true),
            ("few, id", true, true),
            ("few", false, false),
            ("text", true, false),
            ("few, text, id", true, false),
            ("span, id", false, false),
            ("zone, id", false, false),
            ("document, id", false, false),
            ("few, id, text", true, true),
            ("few, few, id", true, false),
        ] {
            let order = order(&mart, by);
            assert_eq!(order.is_some(), is_told, "{by}");
            assert_eq!(order.is_some_and(|order| order.is_decisive), is_decisive, "{by}");
        }
    }
}
