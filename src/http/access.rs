//! Who asks, and which rows they may see.
//!
//! A token file has a token to a line, and after it, separated by spaces, the scopes that it may
//! use: `user_id=<value>` for one value, `user_id=*` for any one value at a time, `*` for all rows at
//! once. A token without scopes may be used where rows are not scoped. `#` begins a comment.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str;
use std::sync::Arc;

use arc_swap::ArcSwap;
use blake3::Hash;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use tracing::{error, info};

use super::problem::{self, Problem};
use crate::catalog::Mart;
use crate::engine::{Principal, Scope, Scoping};

/// Which rows a request wants to see.
const MARTD_SCOPE: HeaderName = HeaderName::from_static("martd-scope");
/// The scope of all rows.
const ALL_ROWS: &str = "*";

/// The tokens that are accepted. A clone shares them.
#[derive(Debug, Clone)]
pub struct Tokens(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    tokens: ArcSwap<Vec<Token>>,
}

/// One line of the file. The token itself is not kept.
struct Token {
    hash: Hash,
    grants: Vec<Grant>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("grants", &self.grants).finish_non_exhaustive()
    }
}

/// What a token may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Grant {
    AllRows,
    AnyValue { column: String },
    OneValue { column: String, value: String },
}

/// Who asks: a token, or anyone where no token is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    token: Option<Hash>,
    grants: Vec<Grant>,
    /// Where they ask from, unless that is a Unix socket.
    address: Option<IpAddr>,
}

/// Of which marts a caller may know how much is in them. A count of everybody's rows tells of others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes<'s> {
    hidden: Option<&'s Scoping>,
}

impl Sizes<'_> {
    /// Of all, for operators.
    pub(super) const ALL: Self = Sizes { hidden: None };

    /// Whether of this one.
    pub(super) fn show(self, name: &str, mart: &Mart) -> bool {
        self.hidden.is_none_or(|scoping| scoping.is_open(name, mart.columns()))
    }
}

impl Tokens {
    /// Reads a token file.
    ///
    /// # Errors
    /// When it cannot be read, has no token, or has a line that is wrong.
    pub fn load(file: &Path) -> Result<Self, String> {
        let tokens = ArcSwap::from_pointee(read(file)?);
        Ok(Self(Arc::new(Shared { file: file.to_owned(), tokens })))
    }

    /// Reads the file again. When it is wrong, the old tokens stay.
    pub fn reload(&self) {
        match read(&self.0.file) {
            Ok(tokens) => {
                info!(tokens = tokens.len(), "tokens reloaded");
                self.0.tokens.store(Arc::new(tokens));
            }
            Err(reason) => error!(reason, "the token file is wrong: the old tokens stay"),
        }
    }

    /// Who has this token.
    fn caller(&self, token: &str, address: Option<IpAddr>) -> Result<Caller, Problem> {
        let given = blake3::hash(token.as_bytes());
        // Hashes are compared in constant time, and all of them, so that neither a token nor its
        // place in the file shows in the time that this takes.
        let tokens = self.0.tokens.load();
        let known = tokens.iter().fold(
            None,
            |found, token| {
                if token.hash == given { Some(token) } else { found }
            },
        );
        let known = known.ok_or_else(|| Problem::unauthorized("that token is not known"))?;
        Ok(Caller { token: Some(given), grants: known.grants.clone(), address })
    }
}

impl Caller {
    /// Who sends these headers. Without a token file, that is anyone, who may ask for any one value.
    pub(super) fn identify(
        tokens: Option<&Tokens>,
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> Result<Self, Problem> {
        let token = || {
            let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            let (scheme, token) = given?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
        };
        let token = tokens.and_then(|_| token());
        Self::with_token(tokens, token.as_deref(), address)
    }

    /// Who has this token.
    pub(super) fn with_token(
        tokens: Option<&Tokens>,
        token: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Self, Problem> {
        match (tokens, token) {
            (Some(tokens), Some(token)) => tokens.caller(token, address),
            (Some(_), None) => Err(Problem::unauthorized("send a token: Authorization: Bearer …")),
            (None, _) => Ok(Self { token: None, grants: Vec::new(), address }),
        }
    }

    /// Whether both have the same rights over queries: the same token, or none.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.token == other.token && self.grants == other.grants
    }

    /// Who is answerable for a statement: the token, or the value whose rows are read, or else the
    /// address.
    pub(super) fn principal(&self, scope: &Scope) -> Principal {
        let text = match (&self.token, scope) {
            (Some(token), _) => format!("token {token}"),
            (None, Scope::Value(value)) => format!("scope {value}"),
            (None, Scope::AllRows) => format!("address {:?}", self.address),
        };
        Principal(blake3::hash(text.as_bytes()))
    }

    /// Of which marts the caller may know how much is in them: where rows are scoped, those that anyone
    /// reads as a whole, unless the caller may read all rows.
    pub(super) fn sizes<'s>(&self, scoping: Option<&'s Scoping>) -> Sizes<'s> {
        Sizes { hidden: scoping.filter(|_| !self.grants.contains(&Grant::AllRows)) }
    }

    /// Which rows this request sees: all, where rows are not scoped, or those of its header.
    pub(super) fn scope(
        &self,
        scope_column: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Scope, Problem> {
        let Some(column) = scope_column else {
            return match headers.contains_key(MARTD_SCOPE) {
                false => Ok(Scope::AllRows),
                // Whoever asks for some rows must not get all of them.
                true => Err(Problem::bad_request(
                    "Martd-Scope was sent, but rows are not scoped here (MARTD_SCOPE_COLUMN)",
                )),
            };
        };
        let mut given = headers.get_all(MARTD_SCOPE).iter();
        let header = match (given.next(), given.next()) {
            (None, _) => {
                let detail = format!("say whose rows to read: Martd-Scope: {column}=<value>");
                return Err(Problem::new(problem::SCOPE_REQUIRED, detail));
            }
            (Some(header), None) => str::from_utf8(header.as_bytes())
                .map_err(|_| Problem::bad_request("Martd-Scope is not UTF-8"))?
                .trim(),
            (Some(_), Some(_)) => {
                return Err(Problem::bad_request("Martd-Scope was sent more than once"));
            }
        };
        if header == ALL_ROWS {
            return self.scope_of(Some(column), ALL_ROWS);
        }
        let value = scope_value(header, column).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| {
            let detail = format!(
                "Martd-Scope must be {column}=<value>, or {column}*=UTF-8''<value> with percent-encoding"
            );
            Problem::bad_request(detail)
        })?;
        self.granted(column, value.into_owned())
    }

    /// Which rows are seen by who names a value, or `*`: all, where rows are not scoped.
    pub(super) fn scope_of(&self, column: Option<&str>, name: &str) -> Result<Scope, Problem> {
        match (column, name) {
            (None, _) => Ok(Scope::AllRows),
            (Some(_), ALL_ROWS) if self.grants.contains(&Grant::AllRows) => Ok(Scope::AllRows),
            (Some(_), ALL_ROWS) => Err(Problem::new(
                problem::SCOPE_REQUIRED,
                "reading all rows needs a token that says so",
            )),
            (Some(_), "") => Err(Problem::new(problem::SCOPE_REQUIRED, "say whose rows to read")),
            (Some(column), value) => self.granted(column, value.to_owned()),
        }
    }

    fn granted(&self, column: &str, value: String) -> Result<Scope, Problem> {
        let granted = self.token.is_none()
            || self.grants.iter().any(|grant| match grant {
                Grant::AllRows => false,
                Grant::AnyValue { column: granted } => granted == column,
                Grant::OneValue { column: granted, value: only } => {
                    granted == column && *only == value
                }
            });
        if granted {
            Ok(Scope::Value(value))
        } else {
            Err(Problem::new(problem::SCOPE_REQUIRED, "the token may not read these rows"))
        }
    }
}

/// The value of `<column>=<value>`. Clients that send ASCII alone write the others as RFC 8187 has it:
/// `<column>*=UTF-8''J%C3%BCrgen`.
fn scope_value<'h>(header: &'h str, column: &str) -> Option<Cow<'h, str>> {
    let (name, value) = header.split_once('=')?;
    if name == column {
        return Some(Cow::Borrowed(value));
    }
    let (charset, value) =
        value.split_once("''").filter(|_| name.strip_suffix('*') == Some(column))?;
    let value = percent_decode_str(value).decode_utf8().ok()?;
    charset.eq_ignore_ascii_case("utf-8").then_some(value)
}

fn read(file: &Path) -> Result<Vec<Token>, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let mut tokens = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(token) = words.next() else { continue };
        let grants = words
            .map(grant)
            .collect::<Result<_, _>>()
            .map_err(|problem| format!("{}, line {number}: {problem}", file.display()))?;
        tokens.push(Token { hash: blake3::hash(token.as_bytes()), grants });
    }
    if tokens.is_empty() {
        return Err(format!("{} has no token; write one to a line", file.display()));
    }
    Ok(tokens)
}

fn grant(word: &str) -> Result<Grant, String> {
    if word == ALL_ROWS {
        return Ok(Grant::AllRows);
    }
    match word.split_once('=') {
        Some((column, ALL_ROWS)) if !column.is_empty() => {
            Ok(Grant::AnyValue { column: column.to_owned() })
        }
        Some((column, value)) if !column.is_empty() && !value.is_empty() => {
            Ok(Grant::OneValue { column: column.to_owned(), value: value.to_owned() })
        }
        // The word may be a part of a token, so it is not shown.
        _ => Err("a scope is user_id=<value>, user_id=* or *".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Tokens, String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), text).expect("write");
        Tokens::load(file.path())
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        headers
    }

    fn scope(token: &str, scope: &str) -> Option<Scope> {
        let tokens = tokens("one u=7\nany u=* # the backend\nall *\nnone\n").expect("a file");
        let authorization = format!("Bearer {token}");
        let headers = headers(&[("authorization", &authorization), ("martd-scope", scope)]);
        Caller::identify(Some(&tokens), &headers, None).ok()?.scope(Some("u"), &headers).ok()
    }

    #[test]
    fn a_token_reads_the_rows_that_its_line_says() {
        let value = |value: &str| Some(Scope::Value(value.to_owned()));
        assert_eq!(scope("one", "u=7"), value("7"));
        assert_eq!(scope("one", "u=8"), None);
        assert_eq!(scope("one", "*"), None);
        assert_eq!(scope("any", "u=8"), value("8"));
        assert_eq!(scope("any", "*"), None);
        assert_eq!(scope("any", "v=8"), None);
        assert_eq!(scope("all", "*"), Some(Scope::AllRows));
        assert_eq!(scope("all", "u=7"), None);
        assert_eq!(scope("none", "u=7"), None);
        assert_eq!(scope("unknown", "u=7"), None);
    }

    #[test]
    fn a_scope_has_any_letters() {
        let nobody = Caller { token: None, grants: Vec::new(), address: None };
        let of = |value: &[u8]| {
            let value = hyper::header::HeaderValue::from_bytes(value).expect("a header value");
            let headers = HeaderMap::from_iter([(MARTD_SCOPE, value)]);
            nobody.scope(Some("u"), &headers).ok()
        };
        let value = |value: &str| Some(Scope::Value(value.to_owned()));
        assert_eq!(of("u=Jürgen %41".as_bytes()), value("Jürgen %41"));
        assert_eq!(of(b"u*=UTF-8''J%C3%BCrgen%20%2541"), value("Jürgen %41"));
        assert_eq!(of(b"u*=utf-8''7"), value("7"));
        let wrong: [&[u8]; 6] = [
            b"u=J\xfcrgen",
            b"u*=UTF-8''J%FCrgen",
            b"u*=iso-8859-1''7",
            b"u*=7",
            b"v*=UTF-8''7",
            b"u*=UTF-8''",
        ];
        for wrong in wrong {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_scope_is_required_without_tokens_too() {
        let anyone = |pairs: &[(&'static str, &str)]| {
            let headers = headers(pairs);
            Caller::identify(None, &headers, None).expect("anyone").scope(Some("u"), &headers).ok()
        };
        assert_eq!(anyone(&[("martd-scope", "u=7")]), Some(Scope::Value("7".to_owned())));
        assert_eq!(anyone(&[]), None);
        assert_eq!(anyone(&[("martd-scope", "*")]), None);
        assert_eq!(anyone(&[("martd-scope", "u=7"), ("martd-scope", "u=8")]), None);
        let nobody = Caller { token: None, grants: Vec::new(), address: None };
        assert_eq!(nobody.scope(None, &HeaderMap::new()).ok(), Some(Scope::AllRows));
    }

    #[test]
    fn an_error_in_a_tokens_file_shows_no_token() {
        let problem = tokens("good\nsecret oops\n").expect_err("wrong");
        assert!(problem.contains("line 2: a scope is") && !problem.contains("oops"), "{problem}");
        assert!(tokens("# nothing\n\n").expect_err("empty").contains("has no token"));
    }
}
