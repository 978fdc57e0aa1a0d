//! The facts: what is served, every mart, and what happened lately.

use bytesize::ByteSize;
use jiff::Timestamp;
use maud::{Markup, html};

use super::attention::notices;
use super::{moment, number, span};
use crate::catalog::{Publishing, Source, State};
use crate::engine::EngineStatus;
use crate::events::Event;
use crate::http::access::Sizes;
use crate::http::freshness::{self, MartFreshness, Status};
use crate::http::{App, probes};
use crate::ledger;
use crate::watch::WatchMode;

/// Events that are listed.
const EVENTS: usize = 10;

/// All that the page shows, as of one moment.
pub(super) struct View<'s> {
    state: &'s State,
    unready: Vec<String>,
    freshness: freshness::Document<'s>,
    events: Vec<Event>,
    engine: EngineStatus,
    now: Timestamp,
}

impl<'s> View<'s> {
    pub(super) fn of(app: &App, state: &'s State, sizes: Sizes<'_>, now: Timestamp) -> Self {
        Self {
            state,
            unready: probes::reasons(app, state),
            freshness: freshness::Document::of(state, app.settings().max_age, sizes, now),
            events: app.events().newest(EVENTS),
            engine: app.engine().status(),
            now,
        }
    }

    /// What a tab shows.
    pub(super) fn title(&self) -> &'static str {
        match self.freshness.status() {
            _ if !self.unready.is_empty() => "martd: not ready",
            _ if self.state.held.as_ref().is_some_and(|held| !held.hold.outstanding.is_empty()) => {
                "martd: a build is held"
            }
            Status::Pass => "martd: ready",
            Status::Warn => "martd: marts are late",
            Status::Error => "martd: marts are stale",
        }
    }

    pub(super) fn render(&self) -> Markup {
        let notices =
            notices(self.state, &self.unready, self.freshness.results(), &self.engine, self.now);
        html! {
            (self.badges())
            section.attention aria-labelledby="attention-title" {
                h2 #attention-title { "Needs attention" }
                @if notices.is_empty() {
                    p.calm { "Nothing. Every file that is there is served, and every mart is as fresh as its rule asks." }
                } @else {
                    ul.notices { @for notice in &notices { (notice.render()) } }
                }
            }
            (self.summary())
            (self.marts())
            (self.events())
        }
    }

    fn badges(&self) -> Markup {
        let ready = self.unready.is_empty();
        let status = self.freshness.status();
        html! {
            p.badges {
                span class=(if ready { "badge pass" } else { "badge error" }) {
                    (if ready { "Ready" } else { "Not ready" })
                }
                span class=(badge(status)) { "Freshness: " (word(status)) }
                @match &self.state.held {
                    Some(held) if held.hold.outstanding.is_empty() => span.badge { "A build is running" },
                    Some(_) => span.badge.warn { "A build is held" },
                    None => {}
                }
            }
        }
    }

    fn summary(&self) -> Markup {
        let (state, now) = (self.state, self.now);
        let snapshot = state.snapshot.as_deref();
        html! {
            section.panel aria-labelledby="summary-title" {
                h2 #summary-title { "Served" }
                dl {
                    @if let Some(snapshot) = snapshot {
                        (fact("Snapshot", html! { code title=(snapshot.id) { (&snapshot.id[..12.min(snapshot.id.len())]) } }))
                        (fact("Published", moment(snapshot.published_at, now)))
                        (fact("Generation", html! { (number(snapshot.generation)) }))
                        (fact("Source", html! { (source(snapshot.source)) }))
                    } @else {
                        (fact("Snapshot", html! { "none yet" }))
                    }
                    @if let Some(ledger) = snapshot.and_then(|snapshot| snapshot.ledger.as_ref()) {
                        (fact("Build", html! {
                            code title=(ledger.invocation_id) { (short(&ledger.invocation_id)) } " "
                            (if ledger.status == ledger::Status::Success { "succeeded" } else { "ended with errors" })
                        }))
                        (fact("Build ended", moment(ledger.finished_at, now)))
                    }
                    @if state.publishing == Publishing::Files && state.source() == Source::Parquet {
                        (fact("Publishing", html! { "each file as it lands: no record says which belong together" }))
                    }
                    @if let Some(held) = &state.held {
                        (fact(if held.hold.outstanding.is_empty() { "Build under way since" } else { "Held build" }, html! {
                            @if let Some(build) = &held.hold.invocation_id { code title=(build) { (short(build)) } ", " }
                            (moment(held.since, now))
                        }))
                    }
                    (fact("Engine", html! {
                        @match self.engine.age {
                            Some(age) => { "started " (moment(self.now - age, self.now)) }
                            None => "none at present",
                        }
                        @if let Some(last) = &self.engine.last {
                            ", the one before " (last.reason.name()) " " (moment(last.at, self.now))
                        }
                    }))
                    (fact("Watched by", html! {
                        (match state.watch { WatchMode::Inotify => "inotify", WatchMode::Poll => "polling" })
                    }))
                }
            }
        }
    }

    fn marts(&self) -> Markup {
        let results = self.freshness.results();
        let rows = results.iter().map(|mart| mart.rows).sum::<Option<u64>>();
        let bytes = results.iter().map(|mart| mart.bytes).sum::<Option<u64>>();
        html! {
            section.panel aria-labelledby="marts-title" {
                h2 #marts-title { "Marts" }
                @if results.is_empty() { p { "None is served yet." } } @else {
                    div.scroll role="region" aria-labelledby="marts-title" tabindex="0" {
                        table {
                            thead { tr {
                                th scope="col" { "Mart" }
                                th scope="col" { "Status" }
                                th scope="col" .number { "Age" }
                                th scope="col" { "Last refresh" }
                                th scope="col" { "Rule" }
                                th scope="col" .number { "Rows" }
                                th scope="col" .number { "Size" }
                            } }
                            tbody { @for mart in results { (self.mart(mart)) } }
                            tfoot { tr {
                                th scope="row" { (number(results.len() as u64)) " in all" }
                                td colspan="4" {}
                                td.number { (rows.map_or_else(unknown, number)) }
                                td.number { (bytes.map_or_else(unknown, size)) }
                            } }
                        }
                    }
                }
            }
        }
    }

    fn mart(&self, mart: &MartFreshness<'_>) -> Markup {
        let modified = self.state.snapshot.as_ref().and_then(|s| s.marts.get(mart.name));
        html! {
            tr {
                th scope="row" { code { (mart.name) }
                    @if mart.orphan { " " span.tag { "orphan" } } }
                td { span class=(badge(mart.status)) { (word(mart.status)) } }
                td.number {
                    @match mart.max_loaded_at {
                        Some(time) => (moment(time, self.now)),
                        None => "never loaded",
                    }
                }
                td.fine { @if let Some(mart) = modified {
                    (mart.version.modified().strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
                } }
                td.fine { (rule(mart)) }
                td.number { (mart.rows.map_or_else(unknown, number)) }
                td.number { (mart.bytes.map_or_else(unknown, size)) }
            }
        }
    }

    fn events(&self) -> Markup {
        html! {
            section.panel aria-labelledby="events-title" {
                h2 #events-title { "Lately" }
                @if self.events.is_empty() { p { "Nothing has happened since martd was started." } } @else {
                    ol.events { @for event in &self.events {
                        li { (moment(event.at, self.now)) " " span { (told(event)) } }
                    } }
                }
            }
        }
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn badge(status: Status) -> &'static str {
    match status {
        Status::Pass => "badge pass",
        Status::Warn => "badge warn",
        Status::Error => "badge error",
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::Warn => "warn",
        Status::Error => "error",
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Parquet => "Parquet files",
        Source::Duckdb => "the legacy DuckDB file",
    }
}

fn rule(mart: &MartFreshness<'_>) -> String {
    let part = |name: &str, period: Option<ledger::Period>| {
        period.map(|period| format!("{name} after {}", span(period.seconds())))
    };
    let criteria = mart.criteria;
    let parts = [part("warn", criteria.warn_after), part("error", criteria.error_after)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// In the place of a number that whoever looks may not know.
fn unknown() -> String {
    "–".to_owned()
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

/// The beginning of an id, which is enough to tell it from others.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

fn told(event: &Event) -> String {
    let text = |key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
    match event.kind {
        "snapshot" => {
            let names: Vec<&str> = event.data["changed"]
                .as_array()
                .map(|names| names.iter().filter_map(|name| name.as_str()).take(6).collect())
                .unwrap_or_default();
            let total = event.data["changed_marts"].as_u64().unwrap_or_default() as usize;
            let more = if total > names.len() {
                format!(" and {} more", total - names.len())
            } else {
                String::new()
            };
            let removed = event.data["removed_marts"].as_u64().unwrap_or_default();
            let removed = match event.data["removed"][0].as_str() {
                Some(first) if removed == 1 => format!("removed {first}"),
                Some(first) => format!("removed {first} and {} more", removed - 1),
                None => String::new(),
            };
            let what = match (names.is_empty(), removed.is_empty()) {
                (true, true) => "no mart changed".to_owned(),
                (true, false) => removed,
                (false, true) => format!("{}{more}", names.join(", ")),
                (false, false) => format!("{}{more}; {removed}", names.join(", ")),
            };
            format!("published generation {}: {what}", event.data["generation"])
        }
        "held" => format!("held: {}", text("reason")),
        "released" => "the hold is over".to_owned(),
        "rejected" => format!("rejected {}: {}", text("file"), text("reason")),
        "building" => "a build has begun to write files".to_owned(),
        "recovered" => format!("{} can be read again", text("file")),
        "removed" => format!("{}, which was rejected, is gone", text("file")),
        other => other.to_owned(),
    }
}
