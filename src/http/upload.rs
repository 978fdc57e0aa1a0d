//! The body of a request: its media type, its size, its compression.

use std::io::{self, Read};
use std::str;

use bytes::Bytes;
use headers::{ContentType, HeaderMapExt, Mime};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, EXPECT, HeaderMap, HeaderValue};
use tokio::time::timeout;

use super::App;
use super::problem::{self, Problem};
use crate::encode::Coding;

/// zstd's window, by which a frame says how much memory it takes to be read: 8 MiB, as RFC 9659 has it.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Codings of bodies, as `Accept-Encoding` of a refusal has them.
const CODINGS: &str = "gzip, zstd";

/// What a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadKind {
    /// `application/json`, also where nothing is said.
    Json,
    /// `text/plain`
    Text,
}

/// A body as text, without its compression and byte order mark.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) kind: UploadKind,
    pub(super) text: String,
}

impl Upload {
    /// Reads a body to its end.
    ///
    /// # Errors
    /// When it is too large, too slow, or of a kind that is not understood.
    pub(super) async fn read(
        app: &App,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<Self, Problem> {
        let kind = kind(headers)?;
        let coding = coding(headers)?;
        let most = app.settings.max_body_bytes;
        let too_large = || {
            let detail = format!("the body may have {most} bytes at most (MARTD_MAX_BODY)");
            Problem::new(problem::PAYLOAD_TOO_LARGE, detail)
        };
        // The first read tells such a client to go on. Others are sending already, and would not hear of
        // it if what they send were not read.
        let waits = headers.contains_key(EXPECT);
        if waits && body.size_hint().lower() > most {
            return Err(too_large());
        }
        let within = app.settings.timeouts.body;
        let limited = Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX));
        let packed = match timeout(within, limited.collect()).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(error)) => {
                return Err(Problem::bad_request(format!("the body broke off: {error}")));
            }
            Err(_) => {
                let detail = format!("the body was not there after {within:?}");
                return Err(Problem::new(problem::BODY_TIMEOUT, detail));
            }
        };
        let unpacked = unpack(&packed, coding, most).map_err(|error| {
            Problem::bad_request(format!("the body is not {}: {error}", coding.name()))
        })?;
        let bytes = unpacked.ok_or_else(too_large)?;
        Ok(Self { kind, text: text(&bytes)? })
    }
}

fn kind(headers: &HeaderMap) -> Result<UploadKind, Problem> {
    let refused = |given: &str| {
        let detail =
            format!("{given} is not understood; send application/json or text/plain in UTF-8");
        Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail)
    };
    let given = headers.typed_try_get::<ContentType>();
    let Some(given) = given.map_err(|_| refused("that Content-Type"))? else {
        return Ok(UploadKind::Json);
    };
    let given = Mime::from(given);
    let is_utf8 = given.get_param("charset").is_none_or(|charset| {
        ["utf-8", "us-ascii"].iter().any(|known| charset.as_str().eq_ignore_ascii_case(known))
    });
    match given.essence_str() {
        "application/json" if is_utf8 => Ok(UploadKind::Json),
        "text/plain" if is_utf8 => Ok(UploadKind::Text),
        _ => Err(refused(given.as_ref())),
    }
}

/// The one coding of a body.
fn coding(headers: &HeaderMap) -> Result<Coding, Problem> {
    let given = headers.get_all(CONTENT_ENCODING).into_iter().map(HeaderValue::to_str);
    let given: Vec<&str> = given.map(Result::unwrap_or_default).collect();
    match given.join(",").trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "zstd" => Ok(Coding::Zstd),
        other => {
            let detail =
                format!("a body in {other} is not understood; send it in {CODINGS} or plain");
            Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail)
                .with_header(ACCEPT_ENCODING, HeaderValue::from_static(CODINGS)))
        }
    }
}

/// The bytes behind a coding; `None` when there are more than `most`.
fn unpack(packed: &Bytes, coding: Coding, most: u64) -> io::Result<Option<Bytes>> {
    let mut unpacked = Vec::new();
    let mut read = |source: &mut dyn Read| source.take(most + 1).read_to_end(&mut unpacked);
    match coding {
        Coding::Identity => return Ok(Some(packed.clone())),
        Coding::Gzip => read(&mut flate2::read::MultiGzDecoder::new(&packed[..]))?,
        Coding::Zstd => {
            let mut decoder = zstd::Decoder::new(&packed[..])?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            read(&mut decoder)?
        }
    };
    Ok((unpacked.len() as u64 <= most).then(|| unpacked.into()))
}

/// Without a byte order mark, which editors and shells of Windows write.
fn text(bytes: &[u8]) -> Result<String, Problem> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Problem::bad_request("the body is UTF-16; send it as UTF-8"));
    }
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = str::from_utf8(text).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_cannot_become_a_large_one() {
        let bomb = vec![b' '; 10 << 20];
        let zstd = Bytes::from(zstd::encode_all(&bomb[..], 19).expect("packed"));
        let mut gzip = flate2::read::GzEncoder::new(&bomb[..], flate2::Compression::best());
        let mut packed = Vec::new();
        gzip.read_to_end(&mut packed).expect("packed");
        for (packed, coding) in [(zstd, Coding::Zstd), (packed.into(), Coding::Gzip)] {
            assert!(packed.len() < 20_000, "{coding:?}");
            let unpacked = |most| unpack(&packed, coding, most).expect("it unpacks");
            assert!(unpacked(1 << 20).is_none(), "{coding:?}");
            assert!(unpacked(10 << 20).is_some_and(|bytes| bytes == bomb), "{coding:?}");
            assert!(unpack(&packed.slice(..packed.len() / 2), coding, 20 << 20).is_err());
        }
    }

    #[test]
    fn a_frame_does_not_say_how_much_memory_it_takes() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(27).expect("a window of 128 MiB");
        encoder.include_contentsize(false).expect("unknown");
        io::Write::write_all(&mut encoder, b"select 1").expect("write");
        let packed = encoder.finish().expect("packed");
        assert!(unpack(&packed.into(), Coding::Zstd, 1 << 20).is_err());
    }
}
