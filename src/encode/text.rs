//! Values as text: ISO 8601 for dates and timestamps, DuckDB's spelling for the rest.

use crate::engine::{RawHugeInt, RawInterval, Type, Vector};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// TIME WITH TIME ZONE stores its offset counted down from here, in seconds.
const TIME_TZ_MAX_OFFSET: i32 = 16 * 3600 - 1;

/// A date or timestamp that is after all others, or before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Infinity {
    After,
    Before,
}

/// Writes a value that is not NULL, of one of the types whose text needs no escaping in any format:
/// dates, times, INTERVAL, UUID, BIT.
pub(super) fn value(
    out: &mut Vec<u8>,
    ty: &Type,
    vector: &Vector<'_>,
    row: usize,
) -> Result<(), Infinity> {
    const MILLIS: i64 = 1_000;
    const MICROS: i64 = MICROS_PER_SECOND;
    const NANOS: i64 = 1_000 * MICROS;
    match ty {
        Type::Date => date(out, vector.values::<i32>()[row])?,
        Type::Time => time(out, vector.values::<i64>()[row], MICROS),
        Type::TimeNs => time(out, vector.values::<i64>()[row], NANOS),
        Type::TimeTz => time_tz(out, vector.values::<u64>()[row]),
        Type::Timestamp => timestamp(out, vector.values::<i64>()[row], MICROS)?,
        Type::TimestampS => timestamp(out, vector.values::<i64>()[row], 1)?,
        Type::TimestampMs => timestamp(out, vector.values::<i64>()[row], MILLIS)?,
        Type::TimestampNs => timestamp(out, vector.values::<i64>()[row], NANOS)?,
        Type::TimestampTz => {
            timestamp(out, vector.values::<i64>()[row], MICROS)?;
            out.push(b'Z');
        }
        Type::Interval => interval(out, vector.values::<RawInterval>()[row]),
        Type::Uuid => uuid(out, vector.values::<RawHugeInt>()[row].bits()),
        Type::Bit => bit_string(out, vector.bytes(row)),
        other => unreachable!("{other} has a text of another kind"),
    }
    Ok(())
}

/// `2026-01-31`; years outside of 0 to 9999 carry a sign.
fn date(out: &mut Vec<u8>, days: i32) -> Result<(), Infinity> {
    match days {
        i32::MAX => Err(Infinity::After),
        days if days == -i32::MAX => Err(Infinity::Before),
        days => {
            civil_date(out, i64::from(days));
            Ok(())
        }
    }
}

/// `2026-01-31T12:00:00.5` from `ticks` of `per_second`.
fn timestamp(out: &mut Vec<u8>, ticks: i64, per_second: i64) -> Result<(), Infinity> {
    if ticks == i64::MAX {
        return Err(Infinity::After);
    }
    if ticks == -i64::MAX {
        return Err(Infinity::Before);
    }
    let per_day = SECONDS_PER_DAY * per_second;
    civil_date(out, ticks.div_euclid(per_day));
    out.push(b'T');
    time(out, ticks.rem_euclid(per_day), per_second);
    Ok(())
}

/// `12:00:00.5` from `ticks` of `per_second` since midnight.
fn time(out: &mut Vec<u8>, ticks: i64, per_second: i64) {
    let seconds = ticks / per_second;
    clock(out, seconds);
    fraction(out, ticks % per_second, per_second);
}

/// `12:00:00+02` as DuckDB packs it: 40 bits of microseconds, 24 of offset.
fn time_tz(out: &mut Vec<u8>, bits: u64) {
    time(out, (bits >> 24) as i64, MICROS_PER_SECOND);
    let offset = TIME_TZ_MAX_OFFSET - (bits & 0xff_ffff) as i32;
    out.push(if offset < 0 { b'-' } else { b'+' });
    let offset = offset.abs();
    padded(out, i64::from(offset / 3600), 2);
    if offset % 3600 != 0 {
        out.push(b':');
        padded(out, i64::from(offset / 60 % 60), 2);
    }
    if offset % 60 != 0 {
        out.push(b':');
        padded(out, i64::from(offset % 60), 2);
    }
}

/// `1 year 2 months 3 days 04:05:06.7`
fn interval(out: &mut Vec<u8>, interval: RawInterval) {
    let start = out.len();
    let parts =
        [(interval.months / 12, "year"), (interval.months % 12, "month"), (interval.days, "day")];
    for (count, unit) in parts {
        if count != 0 {
            if out.len() > start {
                out.push(b' ');
            }
            let plural = if count.abs() == 1 { "" } else { "s" };
            out.extend_from_slice(format!("{count} {unit}{plural}").as_bytes());
        }
    }
    if interval.micros != 0 || out.len() == start {
        if out.len() > start {
            out.push(b' ');
        }
        if interval.micros < 0 {
            out.push(b'-');
        }
        let micros = interval.micros.unsigned_abs();
        clock(out, (micros / MICROS_PER_SECOND as u64) as i64);
        fraction(out, (micros % MICROS_PER_SECOND as u64) as i64, MICROS_PER_SECOND);
    }
}

/// The bits of a BIT value: the first byte counts the padding bits of the second.
fn bit_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let Some((&padding, bits)) = bytes.split_first() else { return };
    let all = bits.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1));
    out.extend(all.skip(usize::from(padding)).map(|bit| b'0' + bit));
}

/// The bits of a UUID; DuckDB stores it with the first one flipped, so that it sorts.
pub(super) fn uuid_bits(stored: u128) -> u128 {
    stored ^ 1 << 127
}

/// `0e3c…` with its hyphens.
fn uuid(out: &mut Vec<u8>, stored: u128) {
    let uuid = uuid::Uuid::from_u128(uuid_bits(stored));
    let mut buffer = uuid::Uuid::encode_buffer();
    out.extend_from_slice(uuid.hyphenated().encode_lower(&mut buffer).as_bytes());
}

/// A DECIMAL from its digits: `-0.05` for -5 at scale 2.
pub(super) fn decimal(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    let scale = usize::from(scale);
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(unscaled.unsigned_abs());
    if unscaled < 0 {
        out.push(b'-');
    }
    let whole = digits.len().saturating_sub(scale);
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits.as_bytes()[..whole] });
    if scale > 0 {
        out.push(b'.');
        out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
        out.extend_from_slice(&digits.as_bytes()[whole..]);
    }
}

/// A BIGNUM: three bytes of header (a sign bit, then the length), then the magnitude with the most
/// significant byte first; all bytes are inverted for negative numbers.
pub(super) fn bignum(out: &mut Vec<u8>, bytes: &[u8]) {
    let Some((header, magnitude)) = bytes.split_at_checked(3) else { return };
    let negative = header[0] & 0x80 == 0;
    let mask = if negative { 0xff } else { 0 };
    // Base 10^18, least significant limb first: each step multiplies by 256 and adds a byte.
    const LIMB: u128 = 1_000_000_000_000_000_000;
    let mut limbs: Vec<u64> = vec![0];
    for byte in magnitude {
        let mut carry = u128::from(byte ^ mask);
        for limb in &mut limbs {
            let sum = u128::from(*limb) * 256 + carry;
            *limb = (sum % LIMB) as u64;
            carry = sum / LIMB;
        }
        if carry > 0 {
            limbs.push(carry as u64);
        }
    }
    if negative {
        out.push(b'-');
    }
    let mut limbs = limbs.iter().rev();
    out.extend_from_slice(limbs.next().copied().unwrap_or(0).to_string().as_bytes());
    for limb in limbs {
        out.extend_from_slice(format!("{limb:018}").as_bytes());
    }
}

fn civil_date(out: &mut Vec<u8>, days: i64) {
    // Days are counted from 0000-03-01, in eras of 400 years that begin there: leap days come last.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);

    if !(0..=9999).contains(&year) {
        out.push(if year < 0 { b'-' } else { b'+' });
    }
    padded(out, year.abs(), 4);
    out.push(b'-');
    padded(out, month, 2);
    out.push(b'-');
    padded(out, day, 2);
}

fn clock(out: &mut Vec<u8>, seconds: i64) {
    padded(out, seconds / 3600, 2);
    out.push(b':');
    padded(out, seconds / 60 % 60, 2);
    out.push(b':');
    padded(out, seconds % 60, 2);
}

fn fraction(out: &mut Vec<u8>, ticks: i64, per_second: i64) {
    if ticks == 0 {
        return;
    }
    out.push(b'.');
    padded(out, ticks, per_second.ilog10() as usize);
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

fn padded(out: &mut Vec<u8>, number: i64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn dates_on_both_sides_of_every_edge() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (-719_528, "0000-01-01"),
            (-719_529, "-0001-12-31"),
            (2_932_896, "9999-12-31"),
            (2_932_897, "+10000-01-01"),
        ] {
            assert_eq!(text(|out| date(out, days).expect("finite")), expected);
        }
        assert_eq!(date(&mut Vec::new(), i32::MAX), Err(Infinity::After));
        assert_eq!(date(&mut Vec::new(), -i32::MAX), Err(Infinity::Before));
    }

    #[test]
    fn timestamps_before_the_epoch_count_forwards_in_their_day() {
        let at = |ticks, per_second| text(|out| timestamp(out, ticks, per_second).expect("finite"));
        assert_eq!(at(-1, MICROS_PER_SECOND), "1969-12-31T23:59:59.999999");
        assert_eq!(at(1_500, 1_000), "1970-01-01T00:00:01.5");
        assert_eq!(at(1, 1_000_000_000), "1970-01-01T00:00:00.000000001");
    }

    #[test]
    fn decimals_keep_their_scale() {
        assert_eq!(text(|out| decimal(out, -5, 2)), "-0.05");
        assert_eq!(text(|out| decimal(out, 12_300, 2)), "123.00");
        assert_eq!(text(|out| decimal(out, 7, 0)), "7");
    }

    #[test]
    fn intervals_read_as_duckdb_prints_them() {
        let of =
            |months, days, micros| text(|out| interval(out, RawInterval { months, days, micros }));
        assert_eq!(of(14, 1, 0), "1 year 2 months 1 day");
        assert_eq!(of(0, 0, 0), "00:00:00");
        assert_eq!(of(-1, 0, -1_500_000), "-1 month -00:00:01.5");
    }
}
