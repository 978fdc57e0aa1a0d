//! W3C trace context: the trace that a request belongs to, so that martd's log lines can be found
//! from its caller's.

use hyper::header::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace and the span that a request was sent from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TraceParent {
    pub(super) trace_id: String,
    pub(super) parent_id: String,
}

impl TraceParent {
    /// What the header says; nothing if it is malformed or there twice, as the standard asks.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let mut parts = value.to_str().ok()?.split('-');
        let version = hex(parts.next()?, 2).filter(|version| *version != "ff")?;
        let trace_id = hex(parts.next()?, 32).filter(|id| !is_zero(id))?;
        let parent_id = hex(parts.next()?, 16).filter(|id| !is_zero(id))?;
        hex(parts.next()?, 2)?;
        // Only later versions may have more.
        if version == "00" && parts.next().is_some() {
            return None;
        }
        Some(Self { trace_id: trace_id.to_owned(), parent_id: parent_id.to_owned() })
    }
}

fn hex(text: &str, digits: usize) -> Option<&str> {
    let allowed = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(allowed)).then_some(text)
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_taken_as_the_standard_says() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACEPARENT, value.parse().expect("a header value"));
            }
            TraceParent::of(&headers)
        };
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let known = TraceParent { trace_id: trace.to_owned(), parent_id: parent.to_owned() };
        let good = format!("00-{trace}-{parent}-01");
        assert_eq!(of(&[&good]).as_ref(), Some(&known));
        assert_eq!(of(&[&format!("01-{trace}-{parent}-01-more")]).as_ref(), Some(&known));
        for bad in [
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}x-{parent}-01"),
            String::new(),
        ] {
            assert_eq!(of(&[&bad]), None, "{bad}");
        }
        assert_eq!(of(&[&good, &good]), None);
        assert_eq!(of(&[]), None);
    }
}
