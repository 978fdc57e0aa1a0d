//! What a client wants its answer to look like: `Accept` and `Accept-Encoding` (RFC 9110, section
//! 12.5), and `?format=`, which wins over `Accept` because a link cannot set headers.

use hyper::header::{ACCEPT, ACCEPT_ENCODING, AsHeaderName, HeaderMap};

use super::arguments::Arguments;
use super::problem::{self, Problem};
use crate::encode::{Coding, Codings, Format};

/// The shape of an answer that its client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) format: Format,
    pub(super) codings: Codings,
}

impl Negotiated {
    /// A format, not compressed.
    pub(super) fn plain(format: Format) -> Self {
        Self { format, codings: Codings { best: Coding::Identity, identity: true } }
    }

    /// What a request says, or why there is nothing like it.
    pub(super) fn of(arguments: &Arguments, headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { format: format(arguments.get("format"), headers)?, codings: codings(headers)? })
    }
}

/// The format of the answer: what `?format=` says, or the best that `Accept` allows. Among equals
/// the range that says more wins (`text/csv` over `*/*`), then the one that comes first.
fn format(asked: Option<&str>, headers: &HeaderMap) -> Result<Format, Problem> {
    if let Some(name) = asked {
        let found = Format::ALL.into_iter().find(|format| format.name() == name);
        return found.ok_or_else(|| unsupported(&format!("?format={name}")));
    }
    let ranges = preferences(headers, ACCEPT);
    if ranges.is_empty() {
        return Ok(Format::ALL[0]);
    }
    let quality = |format: &Format| {
        quality(&ranges, |range| specificity(format.media_type(), range))
            .filter(|quality| quality.value > 0)
    };
    // The last of several maxima counts, so the formats are taken backwards.
    let acceptable = Format::ALL.into_iter().rev().filter(|format| quality(format).is_some());
    acceptable.max_by_key(quality).ok_or_else(|| unsupported("Accept"))
}

/// The compression that `Accept-Encoding` asks for; none without it.
fn codings(headers: &HeaderMap) -> Result<Codings, Problem> {
    let ranges = preferences(headers, ACCEPT_ENCODING);
    let matches = |coding: Coding, range: &str| match range {
        "*" => Some(0),
        "x-gzip" if coding == Coding::Gzip => Some(1),
        name => (name == coding.name()).then_some(1),
    };
    let value = |coding: &Coding| {
        let quality = quality(&ranges, |range| matches(*coding, range));
        quality.map(|quality| quality.value)
    };
    // Not to be compressed is acceptable unless it is ruled out, but not preferred unless named.
    let identity = value(&Coding::Identity) != Some(0);
    // Browsers name zstd last, so the order says nothing: among equals, the best compression.
    let named = Coding::ALL.into_iter().rev().filter(|coding| value(coding) > Some(0));
    match named.max_by_key(value).or(identity.then_some(Coding::Identity)) {
        Some(best) => Ok(Codings { best, identity }),
        None => {
            let names = Coding::ALL.map(Coding::name).join(", ");
            let detail = format!("Accept-Encoding allows none of what there is: {names}");
            Err(Problem::new(problem::UNSUPPORTED_FORMAT, detail))
        }
    }
}

fn unsupported(asked_by: &str) -> Problem {
    let formats =
        Format::ALL.map(|format| format!("{} (?format={})", format.media_type(), format.name()));
    let detail = format!("{asked_by} allows none of what there is: {}", formats.join(", "));
    Problem::new(problem::UNSUPPORTED_FORMAT, detail)
}

/// Whether the client likes one media type better than another, or as well and said more closely.
/// Parameters do not count.
pub(super) fn prefers(headers: &HeaderMap, one: &str, other: &str) -> bool {
    let ranges = preferences(headers, ACCEPT);
    let quality = |media_type: &str| {
        let media_type = media_type.split(';').next().unwrap_or_default();
        quality(&ranges, |range| specificity(media_type, range)).filter(|quality| quality.value > 0)
    };
    quality(one) > quality(other)
}

/// One member of such a header.
#[derive(Debug, PartialEq, Eq)]
struct Preference {
    /// In lower case, without parameters.
    range: String,
    /// In thousandths; 0 says no.
    quality: u16,
}

/// The members of a header that may be there several times. What does not parse is left out.
fn preferences(headers: &HeaderMap, name: impl AsHeaderName) -> Vec<Preference> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let members = values.flat_map(|value| value.split(',')).map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case("q"));
        let quality = match weight {
            None => 1_000,
            Some((_, value)) => thousandths(value)?,
        };
        (!range.is_empty()).then_some(Preference { range, quality })
    });
    members.flatten().collect()
}

/// `1`, `0.5`, `0.125`: at most three places, at most 1.
fn thousandths(value: &str) -> Option<u16> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !digits(fraction) {
        return None;
    }
    let thousandths = format!("{whole}{fraction:0<3}").parse().ok()?;
    (thousandths <= 1_000).then_some(thousandths)
}

/// How closely a range names a media type; `None` when it does not.
fn specificity(media_type: &str, range: &str) -> Option<u8> {
    let kind = media_type.split('/').next().unwrap_or_default();
    match range.split_once('/')? {
        ("*", "*") => Some(0),
        (range_kind, "*") => (range_kind == kind).then_some(1),
        _ => (range == media_type).then_some(2),
    }
}

/// What the client thinks of one candidate. Ordered as preferences are.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Quality {
    value: u16,
    specificity: u8,
    /// Counted down from the first, which is preferred.
    index: std::cmp::Reverse<usize>,
}

/// The quality that the most specific range gives, whatever other ranges say.
fn quality(ranges: &[Preference], matches: impl Fn(&str) -> Option<u8>) -> Option<Quality> {
    let matching = ranges.iter().enumerate().filter_map(|(index, preference)| {
        let specificity = matches(&preference.range)?;
        let index = std::cmp::Reverse(index);
        Some(Quality { value: preference.quality, specificity, index })
    });
    matching.max_by_key(|quality| (quality.specificity, quality.index))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn with(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_best_format_that_accept_allows() {
        for (accept, expected) in [
            (&[][..], Some(Format::Json)),
            (&[""], Some(Format::Json)),
            (&["*/*"], Some(Format::Json)),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Some(Format::Json)),
            (&["text/csv"], Some(Format::Csv)),
            (&["Text/CSV; Charset=UTF-8 ; Q=0.5"], Some(Format::Csv)),
            (&["text/*"], Some(Format::Csv)),
            (&["application/*"], Some(Format::Json)),
            (&["application/json;q=0.5, text/csv;q=0.6"], Some(Format::Csv)),
            (&["application/json;q=0.5", "text/csv;q=0.6"], Some(Format::Csv)),
            (&["text/csv, application/json"], Some(Format::Csv)),
            (&["*/*, application/x-ndjson"], Some(Format::Ndjson)),
            (&["application/json;q=0, */*"], Some(Format::Ndjson)),
            (&["*/*;q=0.1, application/vnd.apache.arrow.stream;q=0.2"], Some(Format::Arrow)),
            (
                &["application/*;q=0.9, application/json;q=0.1, text/csv;q=0.5"],
                Some(Format::Ndjson),
            ),
            (&["text/csv;q=2, application/json;q=0.001"], Some(Format::Json)),
            (&["text/csv;q=1.001"], Some(Format::Json)),
            (&["text/html"], None),
            (&["text/csv;q=0"], None),
            (&["*/*;q=0.000"], None),
            (&["json"], None),
        ] {
            let found = format(None, &with(ACCEPT, accept)).ok();
            assert_eq!(found, expected, "{accept:?}");
        }
    }

    #[test]
    fn the_argument_wins_over_accept() {
        let headers = with(ACCEPT, &["text/csv"]);
        assert_eq!(format(Some("arrow"), &headers).expect("a format"), Format::Arrow);
        assert!(format(Some("xml"), &headers).is_err());
        assert!(format(Some(""), &headers).is_err());
    }

    #[test]
    fn the_best_coding_and_whether_none_will_do() {
        let some = |best, identity| Some(Codings { best, identity });
        for (accept, expected) in [
            (&[][..], some(Coding::Identity, true)),
            (&[""], some(Coding::Identity, true)),
            (&["gzip, deflate, br"], some(Coding::Gzip, true)),
            (&["gzip, deflate, br, zstd"], some(Coding::Zstd, true)),
            (&["zstd;q=1, gzip;q=0.9"], some(Coding::Zstd, true)),
            (&["GZIP;q=0.5, zstd;q=0.8"], some(Coding::Zstd, true)),
            (&["x-gzip"], some(Coding::Gzip, true)),
            (&["br"], some(Coding::Identity, true)),
            (&["identity, gzip;q=0.5"], some(Coding::Identity, true)),
            (&["*"], some(Coding::Zstd, true)),
            (&["gzip;q=0, *"], some(Coding::Zstd, true)),
            (&["gzip, identity;q=0"], some(Coding::Gzip, false)),
            (&["gzip, *;q=0"], some(Coding::Gzip, false)),
            (&["br, identity;q=0"], None),
            (&["*;q=0"], None),
            (&["*;q=0, identity;q=0.1"], some(Coding::Identity, true)),
        ] {
            assert_eq!(codings(&with(ACCEPT_ENCODING, accept)).ok(), expected, "{accept:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(5_000))]

        #[test]
        fn any_header_chooses_a_format_or_is_a_problem(
            accept in "[ -~]{0,60}",
            coding in "((gzip|zstd|identity|\\*|[a-z]{0,4})(;q=[0-9.]{0,5})?,? ?){0,5}",
        ) {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().expect("printable"));
            headers.insert(ACCEPT_ENCODING, coding.parse().expect("printable"));
            let _ = Negotiated::of(&Arguments::default(), &headers);
        }
    }
}
