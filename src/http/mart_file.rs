//! `GET /v1/marts/{name}.parquet`: the bytes that a snapshot serves a mart from, for those who would
//! rather have the file. Ranges let DuckDB, pandas and the like read it in place.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use headers::{AcceptRanges, ContentRange, ETag, HeaderMapExt, LastModified};
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE,
};
use hyper::{HeaderMap, Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::App;
use super::body::{self, Aborted, BoxBody, Stream};
use super::conditional::Validators;
use super::problem::{self, Problem};
use super::requested::RequestedSnapshot;
use super::routes::{MARTD_SNAPSHOT, RequestContext};
use crate::catalog::Source;
use crate::pin::Pin;

/// What is read and sent at once.
const PART_BYTES: u64 = 256 << 10;

/// Refuses files where rows are scoped.
pub(super) fn refuse_where_scoped(app: &App) -> Result<(), Problem> {
    app.settings.scope_column().map_or(Ok(()), |column| {
        let detail = format!("a file holds everybody's rows, and rows are scoped by {column}");
        Err(Problem::new(problem::SCOPE_REQUIRED, detail))
    })
}

/// Answers with the file of a mart, or a range of it. `path` is what follows `/v1/marts/`.
pub(super) async fn answer(
    RequestContext { app, state, head, .. }: &RequestContext<'_>,
    path: &str,
) -> Result<Response<BoxBody>, Problem> {
    let (method, headers) = (&head.method, &head.headers);
    refuse_where_scoped(app)?;
    let requested = RequestedSnapshot::named(headers);
    let snapshot = requested.snapshot(app, state, app.settings.query_timeout).await?;
    if snapshot.source == Source::Duckdb {
        let detail = "no mart has a Parquet file yet: the legacy DuckDB file is served";
        return Err(Problem::new(problem::NOT_FOUND, detail));
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mart = decoded.strip_suffix(".parquet").and_then(|name| snapshot.marts.get(name));
    let Some(mart) = mart else {
        let detail = format!("{decoded} is not a mart's file; GET /v1/snapshot lists the marts");
        return Err(Problem::new(problem::NOT_FOUND, detail));
    };
    let Some(pin) = mart.version.pin.file() else {
        let detail = format!(
            "the mart is a directory of {} files, and has no single one; query it, or ask for ?format=arrow",
            mart.version.pin.files().len()
        );
        return Err(Problem::new(problem::NOT_FOUND, detail));
    };
    let etag: ETag = format!("\"{}\"", pin.hash().short()).parse().expect("an entity tag");
    // A time that is still to come tells no versions apart, and may not be sent.
    let modified = SystemTime::from(mart.version.modified()).min(SystemTime::now());
    let validators =
        Validators { etag: Some(etag.clone()), modified: Some(modified), exists: true };
    let is_known = validators.is_known_to(method, headers)?;

    let mut answer = HeaderMap::new();
    answer.typed_insert(AcceptRanges::bytes());
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    answer.typed_insert(etag);
    answer.typed_insert(LastModified::from(modified));
    let id = HeaderValue::try_from(snapshot.id.as_str()).map_err(Problem::internal)?;
    answer.insert(MARTD_SNAPSHOT, id);

    let (status, content) = if is_known {
        (StatusCode::NOT_MODIFIED, body::full(Bytes::new()))
    } else {
        // A range of another version than the client has begun would not fit the rest.
        let is_ranged = method == Method::GET && validators.fits_range(headers);
        let wanted = headers.get(RANGE).filter(|_| is_ranged);
        let size = pin.size();
        let (status, range) = match wanted.and_then(|value| range(value, size)) {
            None => (StatusCode::OK, 0..size),
            Some(Some(range)) => {
                let shown = ContentRange::bytes(range.clone(), size);
                answer.typed_insert(shown.map_err(Problem::internal)?);
                (StatusCode::PARTIAL_CONTENT, range)
            }
            Some(None) => {
                let problem = Problem::new(
                    problem::RANGE_NOT_SATISFIABLE,
                    format!("the file has {size} bytes"),
                );
                let shown = HeaderValue::try_from(format!("bytes */{size}"));
                let shown = shown.map_err(Problem::internal)?;
                return Err(problem.with("size", size).with_header(CONTENT_RANGE, shown));
            }
        };
        let media = HeaderValue::from_static("application/vnd.apache.parquet");
        answer.insert(CONTENT_TYPE, media);
        answer.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        (status, stream(App::clone(app), Arc::clone(pin), range))
    };
    let mut response = Response::new(content);
    *response.status_mut() = status;
    *response.headers_mut() = answer;
    Ok(response)
}

/// The one range that is asked for: `None` when there is none that is understood (then the whole file
/// is meant), `Some(None)` when it lies outside of the file.
fn range(value: &HeaderValue, size: u64) -> Option<Option<Range<u64>>> {
    let (unit, ranges) = value.to_str().ok()?.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = ranges.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| is_number)
    };
    let range = if first.is_empty() {
        size.saturating_sub(number(last)?)..size
    } else {
        let first = number(first)?;
        let end = if last.is_empty() {
            size
        } else {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(size)
        };
        first..end
    };
    Some((range.start < range.end).then_some(range))
}

/// Reads a part at a time, as the client takes them.
fn stream(app: App, pin: Arc<Pin>, range: Range<u64>) -> BoxBody {
    let (sender, parts) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut position = range.start;
        while position < range.end {
            let length = (range.end - position).min(PART_BYTES);
            let pin = Arc::clone(&pin);
            let part = tokio::task::spawn_blocking(move || read(&pin, position, length)).await;
            let part = part.unwrap_or_else(|error| Err(Aborted::error(error.to_string())));
            let failed = part.is_err();
            let sent =
                timeout(app.settings.timeouts.stall, sender.send(part.map(Frame::data))).await;
            if failed || !matches!(sent, Ok(Ok(()))) {
                return;
            }
            position += length;
        }
    });
    Stream::new(parts).boxed_unsync()
}

fn read(pin: &Pin, position: u64, length: u64) -> Result<Bytes, Aborted> {
    let mut buffer = vec![0; usize::try_from(length).expect("a part is small")];
    pin.read_exact_at(&mut buffer, position).map_err(|error| Aborted::error(error.to_string()))?;
    if pin.is_intact() {
        Ok(buffer.into())
    } else {
        Err(Aborted::error("the file was rewritten in place while it was read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_rfc_9110_has_them() {
        let of = |text: &'static str| range(&HeaderValue::from_static(text), 100);
        assert_eq!(of("bytes=0-9"), Some(Some(0..10)));
        assert_eq!(of("bytes=90-"), Some(Some(90..100)));
        assert_eq!(of("bytes=-10"), Some(Some(90..100)));
        assert_eq!(of("bytes=-1000"), Some(Some(0..100)));
        assert_eq!(of("bytes=50-1000"), Some(Some(50..100)));
        assert_eq!(of("bytes=100-"), Some(None));
        assert_eq!(of("bytes=-0"), Some(None));
        assert_eq!(of("bytes=9-0"), None);
        assert_eq!(of("bytes=0-1,5-6"), None);
        assert_eq!(of("rows=0-1"), None);
        assert_eq!(of("bytes=+0-9"), None);
        assert_eq!(of("Bytes=0-9"), Some(Some(0..10)));
    }
}
