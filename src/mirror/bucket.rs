//! The store: lists, reads and writes objects below a prefix.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, Certificate, ClientOptions, GetOptions, ObjectStore,
    PutMode, PutOptions, RetryConfig,
};

use tokio::io::AsyncWriteExt;

use super::credentials::{self, CredentialKind};
use super::keys::OddKeys;
use super::object::{Object, ObjectVersion, kind};
use super::plan::{Listing, within_files};
use super::settings::{Addressing, StoreArgs};
use crate::digest::{Digest, Hasher};

/// Up to here a file is written with one request; a part of a larger one is as large at least.
const PART_BYTES: u64 = 16 << 20;
/// Of one object, in S3.
const MOST_PARTS: u64 = 10_000;
/// A file is read in pieces of this size.
const READ_BYTES: u64 = 1 << 20;
/// Parts of one object that are sent at once.
const PARTS_AT_ONCE: usize = 4;
/// What the store says nothing for, of what it has begun to answer.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is tried again this often; what fails then is told, and tried again with growing pauses.
const RETRIES: usize = 3;
/// The object's SHA-256, as whoever wrote it says.
const SHA256: &str = "sha256";
/// The name in an object's metadata by which `publish --to` says that a record will name it.
const RECORDED: &str = "martd-recorded";
/// No file has more bytes.
const LARGEST_FILE: u64 = i64::MAX as u64;

/// A prefix of a bucket.
#[derive(Debug)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    asks_with: CredentialKind,
    prefix: Path,
    odd: OddKeys,
    url: String,
}

/// Why the store does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// The object is another one by now, or gone. The next listing tells.
    #[error("it has changed since it was listed")]
    Changed,
    /// There is an object already where one was to be created.
    #[error("it is there already")]
    Exists,
    /// Something is wrong with the object, or the file.
    #[error("{0}")]
    Content(String),
    /// The store refused, or was not reached.
    #[error("{0}")]
    Store(String),
    /// A file cannot be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
}

impl Bucket {
    /// What `url` names. The store is not asked yet.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn open(url: &str, args: &StoreArgs) -> Result<Self, BucketError> {
        let (bucket, prefix) = parse_url(url).map_err(BucketError::Setting)?;
        let wrong = |error: object_store::Error| BucketError::Setting(reason(&error));
        // The one provider that martd has; a second call finds it.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let mut options = ClientOptions::new()
            .with_timeout_disabled() // a large object may take its time
            .with_read_timeout(READ_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT);
        if args.allow_http {
            options = options.with_allow_http(true);
        }
        if let Some(file) = &args.ca_file {
            let unusable = |reason: String| {
                BucketError::Setting(format!("MARTD_S3_CA_FILE: {}: {reason}", file.display()))
            };
            let pem = fs::read(file).map_err(|error| unusable(error.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem);
            let certificates = certificates.map_err(|error| unusable(reason(&error)))?;
            if certificates.is_empty() {
                return Err(unusable("has no certificate".to_owned()));
            }
            for certificate in certificates {
                options = options.with_root_certificate(certificate);
            }
        }
        let prefix = Path::parse(prefix).map_err(|error| wrong(error.into()))?;
        let odd = OddKeys::new(match prefix.is_root() {
            true => String::new(),
            false => format!("{prefix}/"),
        });
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES,
            retry_timeout: Duration::from_secs(30),
        };
        let mut builder = credentials::builder()
            .with_client_options(options)
            .with_retry(retry)
            .with_http_connector(odd.clone())
            .with_bucket_name(bucket);
        if let Some(region) = &args.region {
            builder = builder.with_region(region);
        }
        let is_virtual = args.addressing == Addressing::Virtual;
        builder = builder.with_virtual_hosted_style_request(is_virtual);
        if let Some(endpoint) = &args.endpoint {
            let (scheme, host) = endpoint.split_once("://").ok_or_else(|| {
                BucketError::Setting(format!("{endpoint:?} is no URL; write it as https://HOST"))
            })?;
            if scheme == "http" && !args.allow_http {
                let reason = "the endpoint has no TLS; use https, or say --allow-http";
                return Err(BucketError::Setting(reason.to_owned()));
            }
            builder = builder.with_endpoint(match is_virtual {
                true => format!("{scheme}://{bucket}.{}", host.trim_end_matches('/')),
                false => endpoint.clone(),
            });
        }
        let (store, asks_with) = credentials::build(builder).map_err(BucketError::Setting)?;
        Ok(Self {
            store: Arc::new(store),
            asks_with,
            prefix,
            odd,
            url: url.trim_end_matches('/').to_owned(),
        })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The objects below the prefix that martd reads, and the paths of those that it would read if files could
    /// have them.
    ///
    /// # Errors
    /// When the store does not list them.
    pub async fn list(&self) -> Result<(Listing, BTreeSet<String>), BucketError> {
        self.odd.take(); // of a listing that failed
        let mut objects = self.store.list(Some(&self.prefix));
        let mut listing = Listing::new();
        while let Some(meta) = objects.try_next().await.map_err(|error| self.refusal(error))? {
            let Some(path) = meta.location.as_ref().strip_prefix(self.prefix.as_ref()) else {
                continue;
            };
            let path = path.strip_prefix('/').unwrap_or(path);
            if kind(path).is_some() {
                let version = ObjectVersion {
                    size: meta.size,
                    etag: meta.e_tag,
                    id: meta.version,
                    modified_ms: meta.last_modified.timestamp_millis(),
                };
                listing.insert(path.to_owned(), version);
            }
        }
        let mut odd = self.odd.take();
        odd.extend(within_files(&listing));
        listing.retain(|path, _| !odd.contains(path));
        Ok((listing, odd))
    }

    /// Reads an object as it was listed, and writes it to `to`.
    ///
    /// # Errors
    /// When it is another one by now, is not what it claims to be, or cannot be read.
    pub async fn get(&self, object: &Object, mut to: impl Write) -> Result<Received, BucketError> {
        let listed = &object.version;
        if listed.size > LARGEST_FILE {
            let reason = "it is listed with a size that no file can have; upload it again";
            return Err(BucketError::Content(reason.to_owned()));
        }
        let options = GetOptions {
            if_match: listed.etag.clone(),
            version: listed.id.clone(),
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&self.key(&object.path)?, options).await?;
        let mark =
            |etag: &Option<String>| etag.as_deref().map(|etag| etag.trim_matches('"').to_owned());
        if listed.etag.is_some() && mark(&answer.meta.e_tag) != mark(&listed.etag) {
            return Err(BucketError::Changed); // of a store that knows no conditions
        }
        let claimed = answer.attributes.get(&Attribute::Metadata(SHA256.into())).cloned();
        let is_recorded = answer.attributes.get(&Attribute::Metadata(RECORDED.into())).is_some();
        let (mut hasher, mut size) = (Hasher::default(), 0);
        let mut stream = answer.into_stream();
        while let Some(part) = stream.try_next().await? {
            hasher.update(&part);
            size += part.len() as u64;
            if size > listed.size {
                break;
            }
            to.write_all(&part)?;
        }
        if size != listed.size {
            let listed = listed.size;
            return Err(BucketError::Content(format!("{size} of {listed} bytes have come")));
        }
        let digest = hasher.finish();
        if claimed.is_some_and(|claimed| claimed.parse() != Ok(digest)) {
            let reason = "its bytes are not those that its writer has hashed; upload it again";
            return Err(BucketError::Content(reason.to_owned()));
        }
        Ok(Received { digest, is_recorded })
    }

    /// The SHA-256 with which an object was uploaded, if it is there and its writer said so.
    ///
    /// # Errors
    /// When the store does not tell.
    pub async fn digest(&self, path: &str) -> Result<Option<Digest>, BucketError> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.store.get_opts(&self.key(path)?, options).await {
            Ok(answer) => {
                let claimed = answer.attributes.get(&Attribute::Metadata(SHA256.into()));
                Ok(claimed.and_then(|claimed| claimed.parse().ok()))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an object of a file's bytes, which must be those of the digest: else there is no new object. A record that
    /// names it is to follow.
    ///
    /// # Errors
    /// When the file or the store fail, or the file is another one by now.
    pub async fn put(
        &self,
        path: &str,
        mut from: impl Read,
        (size, sha256): (u64, Digest),
        sent: impl Fn(u64),
    ) -> Result<(), BucketError> {
        let mut attributes = claim(sha256);
        attributes.insert(Attribute::Metadata(RECORDED.into()), "yes".into());
        let part_bytes = PART_BYTES.max(size.div_ceil(MOST_PARTS)) as usize;
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        let mut writer = BufWriter::with_capacity(store, self.key(path)?, part_bytes)
            .with_max_concurrency(PARTS_AT_ONCE)
            .with_attributes(attributes);
        let write = async {
            let mut hasher = Hasher::default();
            loop {
                let mut part = Vec::new();
                from.by_ref().take(READ_BYTES).read_to_end(&mut part)?;
                if part.is_empty() {
                    let changed = || "the file has changed; publish it again".to_owned();
                    let is_it = hasher.finish() == sha256;
                    return if is_it { Ok(()) } else { Err(BucketError::Content(changed())) };
                }
                hasher.update(&part);
                sent(part.len() as u64);
                writer.put(part.into()).await?;
            }
        };
        if let Err(error) = write.await {
            let _ = writer.abort().await; // what is left the bucket's own rules remove
            return Err(error);
        }
        let finished = writer.shutdown().await;
        finished.map_err(|error| match error.downcast::<object_store::Error>() {
            Ok(error) => error.into(),
            Err(error) => error.into(),
        })
    }

    /// Writes an object where there is none.
    ///
    /// # Errors
    /// [`BucketError::Exists`], and when the store fails.
    pub async fn create(&self, path: &str, content: &[u8]) -> Result<(), BucketError> {
        self.write(path, content, PutMode::Create).await
    }

    /// Writes an object, whatever is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn replace(&self, path: &str, content: &[u8]) -> Result<(), BucketError> {
        self.write(path, content, PutMode::Overwrite).await
    }

    async fn write(&self, path: &str, content: &[u8], mode: PutMode) -> Result<(), BucketError> {
        let (key, content) = (self.key(path)?, content.to_vec());
        let attributes = claim(Digest::of(&content));
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        match self.store.put_opts(&key, content.into(), options).await {
            Ok(_) => Ok(()),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Err(BucketError::Exists),
            Err(error) => Err(error.into()),
        }
    }

    /// Names the credentials that the store refuses, unless they were not to be had.
    fn refusal(&self, error: object_store::Error) -> BucketError {
        let asked_with = self.asks_with.name();
        let text = error.to_string(); // of a listing the crate has no kinds of errors
        let is_refused =
            ["401", "403"].iter().any(|code| text.contains(&format!("status code: {code}")));
        match error.into() {
            BucketError::Store(reason) if is_refused && !reason.contains(asked_with) => {
                BucketError::Store(format!("{reason} (asked with {asked_with})"))
            }
            error => error,
        }
    }

    fn key(&self, path: &str) -> Result<Path, BucketError> {
        let whole = match self.prefix.is_root() {
            true => path.to_owned(),
            false => format!("{}/{path}", self.prefix),
        };
        Ok(Path::parse(whole).map_err(object_store::Error::from)?)
    }
}

impl From<object_store::Error> for BucketError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        match error {
            E::NotFound { ref path, .. } if !path.is_empty() && !is_of_bucket(&error) => {
                Self::Changed
            }
            E::Precondition { .. } | E::NotModified { .. } => Self::Changed,
            _ => Self::Store(reason(&error)),
        }
    }
}

/// What was downloaded.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Of its bytes.
    pub digest: Digest,
    /// Whether its writer says that a record will name it.
    pub is_recorded: bool,
}

/// What an object says of its content, for whoever downloads it.
fn claim(sha256: Digest) -> Attributes {
    [(Attribute::Metadata(SHA256.into()), sha256.to_string())].into_iter().collect()
}

/// The bucket and the prefix that a URL names.
///
/// # Errors
/// What is wrong with it.
fn parse_url(url: &str) -> Result<(&str, &str), String> {
    let rest = url.strip_prefix("s3://").ok_or_else(|| {
        format!("{url:?} is no address of a bucket; write it as s3://BUCKET/PREFIX")
    })?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    if bucket.is_empty() || prefix.split('/').any(|name| name.is_empty()) && !prefix.is_empty() {
        return Err(format!("{url:?} lacks a name; write it as s3://BUCKET/PREFIX"));
    }
    Ok((bucket, prefix))
}

fn is_of_bucket(error: &object_store::Error) -> bool {
    error.to_string().contains("NoSuchBucket")
}

/// What a person needs to know of an error: what the store says, or else the innermost cause. Neither has secrets in it.
fn reason(error: &object_store::Error) -> String {
    said_by("the store", error)
}

/// The same of another endpoint: `who` answers.
pub(super) fn said_by(who: &str, error: &object_store::Error) -> String {
    let text = error.to_string();
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(content, _)| content.trim().to_owned())
    };
    if let Some(code) = element("Code") {
        let message = element("Message").filter(|message| !message.is_empty());
        return match message {
            Some(message) => format!("{who} answers {code}: {message}"),
            None => format!("{who} answers {code}"),
        };
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let cause = innermost.to_string();
    match error.source() {
        Some(_) if text.contains("error sending request") => {
            format!("{who} is not reached: {cause}")
        }
        _ => cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_the_store_says() {
        let answer = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code>\
                      <Message>Access Denied.</Message></Error>";
        let error = object_store::Error::Generic { store: "S3", source: answer.into() };
        assert_eq!(reason(&error), "the store answers AccessDenied: Access Denied.");
        let error = object_store::Error::Generic { store: "S3", source: "no key".into() };
        assert_eq!(reason(&error), "no key");
    }

    #[test]
    fn a_store_without_tls_is_asked_for() {
        let endpoint = Some("http://127.0.0.1:1".to_owned());
        let args = StoreArgs { endpoint, ..StoreArgs::default() };
        let error = Bucket::open("s3://b/p", &args).expect_err("refused").to_string();
        assert!(error.contains("--allow-http"), "{error}");
        assert!(Bucket::open("s3://b/p", &StoreArgs { allow_http: true, ..args }).is_ok());
    }

    #[test]
    fn a_url_has_a_bucket_and_a_prefix() {
        assert_eq!(parse_url("s3://b"), Ok(("b", "")));
        assert_eq!(parse_url("s3://b/"), Ok(("b", "")));
        assert_eq!(parse_url("s3://b/a/mart/"), Ok(("b", "a/mart")));
        for wrong in ["", "b/a", "s3://", "s3:///a", "s3://b//a", "https://b/a", "gs://b/a"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
