//! Listings as the crate that talks to the store can read them. It refuses all that a page lists for one object whose
//! key no file can have, or whose size is no number, and asks for pages as long as it is told of another one. So the
//! former are taken out of the answer before the crate reads it, and told; and pages without an end are an error.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use parking_lot::Mutex;
use quick_xml::escape::unescape;

use super::object::{is_meant_for_martd, unusable};

/// The size of an object whose size is no number: larger than a file can be.
const ABSURD_SIZE: u64 = u64::MAX;

/// Connects to the store, and keeps what its listings have of such keys below a prefix.
#[derive(Debug, Clone)]
pub(super) struct OddKeys {
    prefix: Arc<str>,
    found: Arc<Mutex<BTreeSet<String>>>,
    /// What the pages of the present listing have named as the next page.
    pages: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

/// Why a listing is given up.
#[derive(Debug, thiserror::Error)]
#[error("the store lists the same page again and again")]
struct Endless;

impl OddKeys {
    /// `prefix` is that of the listings, with the slash at its end.
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix: prefix.into(), found: Arc::default(), pages: Arc::default() }
    }

    /// Paths below the prefix that were found since this was asked before.
    pub(super) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.found.lock())
    }

    /// Takes note of the page that comes after this one. `is_first` begins a listing.
    fn turn(&self, page: &[u8], is_first: bool) -> Result<(), Endless> {
        let mut pages = self.pages.lock();
        if is_first {
            pages.clear();
        }
        let next = between(page, b"<NextContinuationToken>", b"</NextContinuationToken>");
        let is_new = next.is_none_or(|(from, to)| pages.insert(page[from..to].to_vec()));
        is_new.then_some(()).ok_or(Endless)
    }
}

impl HttpConnector for OddKeys {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Sieve { client, keys: self.clone() }))
    }
}

#[derive(Debug)]
struct Sieve {
    client: HttpClient,
    keys: OddKeys,
}

impl HttpService for Sieve {
    // What `async_trait` makes of an async function.
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        let query = request.uri().query().unwrap_or_default();
        let is_listing = query.split('&').any(|pair| pair == "list-type=2");
        let is_first = !query.split('&').any(|pair| pair.starts_with("continuation-token="));
        Box::pin(async move {
            let answer = self.client.execute(request).await?;
            if !is_listing || !answer.status().is_success() {
                return Ok(answer);
            }
            let (head, body) = answer.into_parts();
            let page = body.bytes().await?;
            let turned = self.keys.turn(&page, is_first);
            turned.map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
            let (text, odd) = sift(&page, &self.keys.prefix);
            self.keys.found.lock().extend(odd);
            Ok(HttpResponse::from_parts(head, text.into()))
        })
    }
}

/// A page of a listing without the objects whose keys no file can have, and the paths of those among them that are
/// meant for martd. What begins and ends an object stands in no key, where it is escaped.
fn sift(page: &[u8], prefix: &str) -> (Vec<u8>, Vec<String>) {
    const BEGIN: &[u8] = b"<Contents>";
    const END: &[u8] = b"</Contents>";
    let (mut kept, mut odd) = (Vec::with_capacity(page.len()), Vec::new());
    let mut rest = page;
    while let Some(begin) = find(rest, BEGIN)
        && let Some(length) = find(&rest[begin..], END)
    {
        let end = begin + length + END.len();
        let object = &rest[begin..end];
        let text = String::from_utf8_lossy(object);
        let key = text.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>"));
        let key = key.map(|(key, _)| unescape(key).unwrap_or_else(|_| "\u{fffd}".into()));
        kept.extend_from_slice(&rest[..begin]);
        match key.as_deref().and_then(|key| key.strip_prefix(prefix)) {
            Some(path) if unusable(path).is_some() => {
                // Many programs make an empty object of a folder's name.
                let is_folder = path.ends_with('/') && text.contains("<Size>0</Size>");
                if !is_folder && is_meant_for_martd(path) {
                    odd.push(path.to_owned());
                }
            }
            _ => match between(object, b"<Size>", b"</Size>") {
                Some((from, to)) if !is_size(&object[from..to]) => {
                    kept.extend_from_slice(&object[..from]);
                    kept.extend_from_slice(ABSURD_SIZE.to_string().as_bytes());
                    kept.extend_from_slice(&object[to..]);
                }
                _ => kept.extend_from_slice(object),
            },
        }
        rest = &rest[end..];
    }
    kept.extend_from_slice(rest);
    (kept, odd)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|part| part == what)
}

/// Where what stands between two marks begins and ends.
fn between(text: &[u8], begin: &[u8], end: &[u8]) -> Option<(usize, usize)> {
    let from = find(text, begin)? + begin.len();
    Some((from, from + find(&text[from..], end)?))
}

fn is_size(text: &[u8]) -> bool {
    str::from_utf8(text).is_ok_and(|text| text.trim().parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[&[u8]]) -> Vec<u8> {
        let object =
            |key: &&[u8]| [b"<Contents><Key>", *key, b"</Key><Size>1</Size></Contents>"].concat();
        let objects = keys.iter().flat_map(object);
        [b"<L>".to_vec(), objects.collect(), b"<Next>t</Next></L>".to_vec()].concat()
    }

    #[test]
    fn an_odd_key_is_told_and_the_others_are_listed() {
        let long = format!("p/{}.parquet", "m".repeat(300));
        for (key, path) in [
            (&b"p/a//b.parquet"[..], "a//b.parquet"),
            (b"p//b.parquet", "/b.parquet"),
            (b"p/./b.parquet", "./b.parquet"),
            (b"p/a/../b.parquet", "a/../b.parquet"),
            (b"p/b.parquet/", "b.parquet/"),
            (b"p/_builds//b1.json", "_builds//b1.json"),
            (b"p/a&#xA;&amp;.parquet", "a\n&.parquet"),
            (b"p/a\x01.parquet", "a\u{1}.parquet"),
            (b"p/a\xff.parquet", "a\u{fffd}.parquet"),
            (long.as_bytes(), &long[2..]),
        ] {
            let all = page(&[b"p/a.parquet", key, b"p/z.parquet"]);
            let found = sift(&all, "p/");
            assert_eq!(found, (page(&[b"p/a.parquet", b"p/z.parquet"]), vec![path.to_owned()]));
        }
    }

    #[test]
    fn what_is_nothing_to_martd_is_not_told() {
        for key in [&b"p/logs//x.txt"[..], b"p/", b"p/a/./notes.md", b"p/_x//b.parquet"] {
            let (kept, odd) = sift(&page(&[key]), "p/");
            assert_eq!((kept, odd), (page(&[]), Vec::new()), "{}", String::from_utf8_lossy(key));
        }
        let folder = b"<Contents><Key>p/sales.parquet/</Key><Size>0</Size></Contents>";
        assert_eq!(sift(folder, "p/"), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_a_file_can_be_called_is_left_alone() {
        let all =
            page(&[b"p/a b+%2F?#.parquet", b"p/\xc3\xa9.parquet", b"p/sales/day=1/x.parquet"]);
        assert_eq!(sift(&all, "p/"), (all.clone(), Vec::new()));
        assert_eq!(sift(b"<Error/>", "p/"), (b"<Error/>".to_vec(), Vec::new()));
    }

    #[test]
    fn a_size_that_is_no_number_is_absurd() {
        let object = |size: &str| {
            format!("<Contents><Key>p/a.parquet</Key><Size>{size}</Size></Contents>").into_bytes()
        };
        for size in ["18446744073709551616", "-1", "", "1e3"] {
            assert_eq!(sift(&object(size), "p/"), (object(&u64::MAX.to_string()), Vec::new()));
        }
        for size in ["0", "9223372036854775808", " 7 "] {
            assert_eq!(sift(&object(size), "p/"), (object(size), Vec::new()));
        }
    }

    #[test]
    fn a_listing_without_an_end_is_given_up() {
        let keys = OddKeys::new(String::new());
        let page = |next: &str| {
            format!("<L><NextContinuationToken>{next}</NextContinuationToken></L>").into_bytes()
        };
        let turns = |is_first, next: &str| keys.turn(&page(next), is_first).is_ok();
        assert!(turns(true, "a") && turns(false, "b") && keys.turn(b"<L></L>", false).is_ok());
        // The next listing has the same pages; and one of its own comes again.
        assert!(turns(true, "a") && turns(false, "b") && !turns(false, "a"));
    }
}
