//! Values of settings, as people write them. An error says what would be right.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

/// A number of at least one.
pub type Count = NonZeroUsize;

/// A span of time: `500ms`, `10s`, `1m 30s`.
pub(crate) fn time(text: &str) -> Result<Duration, &'static str> {
    let span: SignedDuration =
        text.parse().map_err(|_| "not a time; write it as 500ms, 10s, 90m or 25h")?;
    Duration::try_from(span).map_err(|_| "a time cannot be negative")
}

/// A size in bytes. It has a unit, because 256 is more often meant as MiB than as bytes.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    let has_unit = text == "0" || text.ends_with(|last: char| last.is_ascii_alphabetic());
    let size = text.parse::<ByteSize>().ok().filter(|_| has_unit && !text.starts_with('-'));
    size.map(|size| size.as_u64()).ok_or("not a size with its unit; write it as 256MiB or 2GiB")
}

pub(super) fn number<N: FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse().map_err(|_| "not a whole number")
}

pub(super) fn count(text: &str) -> Result<Count, &'static str> {
    text.parse().map_err(|_| "not a whole number of at least 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("1.5 kB"), Ok(1500));
        for wrong in ["", "-1", "-1MiB", "256", "2x", "MiB", "much"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
