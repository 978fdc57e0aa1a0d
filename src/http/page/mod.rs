//! `GET /`: the status page. One document with the facts in it, which needs no JavaScript to be read;
//! with JavaScript it follows `/v1/events` and has a query box.
//!
//! Where tokens are asked for, the bare page asks for one and tells nothing; with a token it is the
//! same page as without.

mod attention;
mod charts;
mod facts;

use std::time::Duration;

use hyper::Response;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::App;
use super::access::Caller;
use super::body::{self, BoxBody};
use super::problem::Problem;
use crate::catalog::State;
use crate::printable;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// A square in the colour of the heading: without an icon browsers ask for one that is not there.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E\
                    %3Crect width='8' height='8' rx='2' fill='%230b6e4f'/%3E%3C/svg%3E";
/// Nothing inline, nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A file that the page needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asset {
    Style,
    Script,
}

/// Answers with one of the page's files: the same for everyone.
pub(super) fn asset(asset: Asset) -> Response<BoxBody> {
    match asset {
        Asset::Style => respond(STYLE.to_owned(), "text/css; charset=utf-8"),
        Asset::Script => respond(SCRIPT.to_owned(), "text/javascript; charset=utf-8"),
    }
}

/// Answers with the page.
pub(super) fn answer(
    app: &App,
    state: &State,
    headers: &HeaderMap,
) -> Result<Response<BoxBody>, Problem> {
    let (title, main) = if app.tokens.is_some() && !headers.contains_key(AUTHORIZATION) {
        ("martd", ask_for_token())
    } else {
        let caller = Caller::identify(app.tokens.as_ref(), headers, None)?;
        let sizes = caller.sizes(app.settings.scoping.as_ref());
        let view = facts::View::of(app, state, sizes, Timestamp::now());
        let main = html! {
            div #facts { (view.render()) }
            (query_box(app))
        };
        (view.title(), main)
    };
    let document = document(title, &main).into_string();
    Ok(respond(printable::lines(&document).into_owned(), "text/html; charset=utf-8"))
}

fn respond(text: String, content_type: &'static str) -> Response<BoxBody> {
    let mut response = Response::new(body::full(text));
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(CONTENT_TYPE, content_type);
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(CACHE_CONTROL, "no-store");
    set(REFERRER_POLICY, "no-referrer");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(VARY, "Authorization");
    response
}

fn document(title: &str, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href=(PreEscaped(ICON));
                link rel="stylesheet" href="/status.css";
                script src="/status.js" defer {}
            }
            body {
                header.top {
                    h1 { "martd" }
                    p #live role="status" {}
                    nav aria-label="Documents" {
                        a href="/v1/snapshot" { "snapshot" }
                        a href="/v1/freshness" { "freshness" }
                        a href="/metrics" { "metrics" }
                        a href="/openapi.json" { "API" }
                    }
                }
                main { (main) }
                footer { "martd " (env!("CARGO_PKG_VERSION")) ", DuckDB " (crate::duck::version()) }
            }
        }
    }
}

fn ask_for_token() -> Markup {
    html! {
        section.panel aria-labelledby="token-title" {
            h2 #token-title { "A token is needed" }
            noscript {
                p { "Without JavaScript, send it yourself: "
                    code { "curl -H 'Authorization: Bearer …' " } "to this address." }
            }
            form #token {
                label for="token-value" { "Token" }
                input #token-value type="password" autocomplete="current-password" required;
                button type="submit" { "Show" }
            }
            p #token-problem role="alert" {}
        }
    }
}

/// Without JavaScript the form asks `/v1/query` itself, and the browser shows JSON.
fn query_box(app: &App) -> Markup {
    let scope = app.settings.scope_column();
    html! {
        section.panel aria-labelledby="query-title" {
            h2 #query-title { "Query" }
            form #query action="/v1/query" method="get" data-scope=[scope] data-max-rows=(app.settings.max_rows) {
                label for="sql" { "One SELECT over the marts" }
                textarea #sql name="sql" rows="3" spellcheck="false" autocapitalize="off"
                    placeholder="select * from mart.…" required {}
                input type="hidden" name="limit" value="200";
                @if let Some(column) = scope {
                    label for="scope" { "Rows of " (column) }
                    input #scope type="text" spellcheck="false" autocapitalize="off" required;
                }
                button type="submit" { "Run" }
                button.quiet type="submit" name="format" value="csv" { "Download CSV" }
                span.hint { "Ctrl+Enter runs it; 200 rows are shown, a download has all" }
            }
            div #answer aria-live="polite" {}
            pre.curl { code #curl {} }
        }
    }
}

/// A moment: the time for the record, and how long ago that was, which the script keeps true.
fn moment(time: Timestamp, now: Timestamp) -> Markup {
    let full = time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    html! { time datetime=(time) title=(full) { (ago(now.duration_since(time).as_secs())) } }
}

/// How long ago, in the largest unit that says something. The script counts the same way.
fn ago(seconds: i64) -> String {
    let (word, seconds) = if seconds < 0 { ("from now", -seconds) } else { ("ago", seconds) };
    let count = |unit: i64, name: &str| {
        let count = seconds / unit;
        format!("{count} {name}{} {word}", if count == 1 { "" } else { "s" })
    };
    match seconds {
        ..5 => "just now".to_owned(),
        5..60 => count(1, "second"),
        60..3_600 => count(60, "minute"),
        3_600..172_800 => count(3_600, "hour"),
        _ => count(86_400, "day"),
    }
}

/// A number with its thousands set apart.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span of time as people say it.
fn span(seconds: u64) -> String {
    jiff::SignedDuration::try_from(Duration::from_secs(seconds))
        .map_or_else(|_| format!("{seconds} s"), |span| format!("{span:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_told_as_people_do() {
        let told = [0, 59, 60, 7_199, 172_800, -3_600].map(ago);
        let expected = [
            "just now",
            "59 seconds ago",
            "1 minute ago",
            "1 hour ago",
            "2 days ago",
            "1 hour from now",
        ];
        assert_eq!(told, expected);
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
    }
}
