//! Values as text: ISO 8601 for dates and timestamps, DuckDB's spelling for the rest.

use uuid::Uuid;

use crate::duck::{RawHugeInt, RawInterval, Type, Vector};

/// In a second.
const MILLIS: i64 = 1_000;
const MICROS: i64 = 1_000 * MILLIS;
const NANOS: i64 = 1_000 * MICROS;
const SECONDS_PER_DAY: i64 = 86_400;
/// In 400 years, after which leap years come as before.
const DAYS_IN_ERA: u32 = 146_097;
/// 10000-01-01, counted from 0000-03-01.
const FIVE_DIGITS: u32 = 25 * DAYS_IN_ERA - 60;
/// TIME WITH TIME ZONE stores its offset counted down from here, in seconds.
const TIME_TZ_MAX_OFFSET: i32 = 16 * 3600 - 1;

/// A date or timestamp that is after all others, or before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Infinity {
    After,
    Before,
}

/// Writes a value that is not NULL of a type whose text needs no escaping in any format: a date, a time, an
/// INTERVAL, a UUID or a BIT. `None` for any other type.
pub(super) fn spell(
    out: &mut Vec<u8>,
    ty: &Type,
    vector: &Vector<'_>,
    row: usize,
) -> Option<Result<(), Infinity>> {
    let ticks = || vector.values::<i64>()[row];
    match ty {
        Type::Date => return Some(date(out, vector.values::<i32>()[row])),
        Type::Timestamp => return Some(timestamp::<MICROS>(out, ticks())),
        Type::TimestampS => return Some(timestamp::<1>(out, ticks())),
        Type::TimestampMs => return Some(timestamp::<MILLIS>(out, ticks())),
        Type::TimestampNs => return Some(timestamp::<NANOS>(out, ticks())),
        Type::TimestampTz => {
            return Some(timestamp::<MICROS>(out, ticks()).map(|()| out.push(b'Z')));
        }
        Type::Time => time::<MICROS>(out, ticks()),
        Type::TimeNs => time::<NANOS>(out, ticks()),
        Type::TimeTz => time_tz(out, vector.values::<u64>()[row]),
        Type::Interval => interval(out, vector.values::<RawInterval>()[row]),
        Type::Uuid => uuid(out, vector.values::<RawHugeInt>()[row].bits()),
        Type::Bit => bit_string(out, vector.bytes(row)),
        _ => return None,
    }
    Some(Ok(()))
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

/// `2026-01-31T12:00:00.5` from ticks of which a second has so many.
fn timestamp<const PER_SECOND: i64>(out: &mut Vec<u8>, ticks: i64) -> Result<(), Infinity> {
    if ticks == i64::MAX {
        return Err(Infinity::After);
    }
    if ticks == -i64::MAX {
        return Err(Infinity::Before);
    }
    let per_day = SECONDS_PER_DAY * PER_SECOND;
    civil_date(out, ticks.div_euclid(per_day));
    out.push(b'T');
    time::<PER_SECOND>(out, ticks.rem_euclid(per_day));
    Ok(())
}

/// `12:00:00.5` from ticks since midnight.
fn time<const PER_SECOND: i64>(out: &mut Vec<u8>, ticks: i64) {
    clock(out, ticks / PER_SECOND);
    fraction(out, ticks % PER_SECOND, PER_SECOND);
}

/// `12:00:00+02` as DuckDB packs it: 40 bits of microseconds, 24 of offset.
fn time_tz(out: &mut Vec<u8>, bits: u64) {
    time::<MICROS>(out, (bits >> 24) as i64);
    let offset = TIME_TZ_MAX_OFFSET - (bits & 0xff_ffff) as i32;
    out.push(if offset < 0 { b'-' } else { b'+' });
    let offset = offset.unsigned_abs();
    out.extend_from_slice(&pair(offset / 3600));
    if !offset.is_multiple_of(3600) {
        out.push(b':');
        out.extend_from_slice(&pair(offset / 60 % 60));
    }
    if !offset.is_multiple_of(60) {
        out.push(b':');
        out.extend_from_slice(&pair(offset % 60));
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
        clock(out, (micros / MICROS as u64) as i64);
        fraction(out, (micros % MICROS as u64) as i64, MICROS);
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
    let mut text = Uuid::encode_buffer();
    let uuid = Uuid::from_u128(uuid_bits(stored)).hyphenated();
    out.extend_from_slice(uuid.encode_lower(&mut text).as_bytes());
}

/// A DECIMAL from its digits: `-0.05` for -5 at scale 2.
pub(super) fn decimal(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    if unscaled < 0 {
        out.push(b'-');
    }
    let scale = usize::from(scale);
    let mut buffer = itoa::Buffer::new();
    // The most have fewer than 19 digits, which are written much faster.
    let digits = match u64::try_from(unscaled.unsigned_abs()) {
        Ok(short) => buffer.format(short),
        Err(_) => buffer.format(unscaled.unsigned_abs()),
    };
    let (whole, part) = digits.as_bytes().split_at(digits.len().saturating_sub(scale));
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    if scale > 0 {
        out.push(b'.');
        out.resize(out.len() + scale - part.len(), b'0');
        out.extend_from_slice(part);
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

/// The year, month and day of a day; counted from 0000-03-01, of which it is at most some millennia
/// away: the algorithm of Neri and Schneider, whose divisions are multiplications.
fn civil(days: u32) -> (u32, u32, u32) {
    let quarters = 4 * days + 3;
    let century = quarters / DAYS_IN_ERA;
    let year = 2_939_745 * u64::from((quarters % DAYS_IN_ERA) | 3);
    let (year_of_century, rest) = ((year >> 32) as u32, year as u32);
    let day_of_year = rest / 2_939_745 / 4;
    let month = 2_141 * day_of_year + 197_913;
    let (month, day) = (month >> 16, (month & 0xffff) / 2_141 + 1);
    // A year begins in March here, so that leap days come last.
    let next = u32::from(day_of_year >= 306);
    (100 * century + year_of_century + next, month - 12 * next, day)
}

fn civil_date(out: &mut Vec<u8>, days: i64) {
    let days = days + 719_468; // from 0000-03-01 to 1970-01-01
    let (year, month, day) = match u32::try_from(days) {
        Ok(near) if near < FIVE_DIGITS => civil(near),
        _ => {
            let era = days.div_euclid(i64::from(DAYS_IN_ERA));
            let (year, month, day) = civil(days.rem_euclid(i64::from(DAYS_IN_ERA)) as u32);
            let year = i64::from(year) + 400 * era;
            if !(0..=9999).contains(&year) {
                out.push(if year < 0 { b'-' } else { b'+' });
            }
            let year = year.unsigned_abs();
            if year > 9999 {
                out.extend_from_slice(itoa::Buffer::new().format(year / 10_000).as_bytes());
            }
            ((year % 10_000) as u32, month, day)
        }
    };
    let ([a, b], [c, d]) = (pair(year / 100), pair(year % 100));
    let ([e, f], [g, h]) = (pair(month), pair(day));
    out.extend_from_slice(&[a, b, c, d, b'-', e, f, b'-', g, h]);
}

/// `12:00:00`; an INTERVAL may have more hours.
fn clock(out: &mut Vec<u8>, seconds: i64) {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let hours = seconds / 3600;
    if hours > 99 {
        out.extend_from_slice(itoa::Buffer::new().format(hours / 100).as_bytes());
    }
    let ([a, b], [c, d]) = (pair((hours % 100) as u32), pair((seconds / 60 % 60) as u32));
    let [e, f] = pair((seconds % 60) as u32);
    out.extend_from_slice(&[a, b, b':', c, d, b':', e, f]);
}

/// The two digits of a number up to 99.
fn pair(number: u32) -> [u8; 2] {
    const PAIRS: [[u8; 2]; 100] = {
        let mut pairs = [[0; 2]; 100];
        let mut number = 0;
        while number < pairs.len() {
            pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
            number += 1;
        }
        pairs
    };
    PAIRS[number as usize]
}

fn fraction(out: &mut Vec<u8>, ticks: i64, per_second: i64) {
    if ticks == 0 {
        return;
    }
    out.push(b'.');
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(ticks);
    out.resize(out.len() + per_second.ilog10() as usize - digits.len(), b'0');
    out.extend_from_slice(digits.as_bytes());
    while out.last() == Some(&b'0') {
        out.pop();
    }
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
    fn timestamps_before_1970_count_forwards_in_their_day() {
        let micros = text(|out| timestamp::<MICROS>(out, -1).expect("finite"));
        assert_eq!(micros, "1969-12-31T23:59:59.999999");
        let millis = text(|out| timestamp::<MILLIS>(out, 1_500).expect("finite"));
        assert_eq!(millis, "1970-01-01T00:00:01.5");
        let nanos = text(|out| timestamp::<NANOS>(out, 1).expect("finite"));
        assert_eq!(nanos, "1970-01-01T00:00:00.000000001");
    }

    #[test]
    fn decimals_keep_their_scale() {
        assert_eq!(text(|out| decimal(out, -5, 2)), "-0.05");
        assert_eq!(text(|out| decimal(out, 12_300, 2)), "123.00");
        assert_eq!(text(|out| decimal(out, 7, 0)), "7");
        let longest = "9".repeat(38).parse().expect("38 digits");
        assert_eq!(text(|out| decimal(out, longest, 38)), format!("0.{longest}"));
        assert_eq!(text(|out| decimal(out, -longest, 2)), format!("-{}.99", longest / 100));
    }

    #[test]
    fn every_day_until_leap_years_repeat() {
        let mut expected = jiff::civil::date(1800, 1, 1);
        for days in -62_091..-62_091 + i64::from(DAYS_IN_ERA) {
            assert_eq!(text(|out| civil_date(out, days)), expected.to_string());
            expected = expected.tomorrow().expect("far from the last");
        }
        assert_eq!(expected, jiff::civil::date(2200, 1, 1));
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
