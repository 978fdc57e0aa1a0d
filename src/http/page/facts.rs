//! The facts: what is served, every mart, and what happened lately.

use bytesize::ByteSize;
use jiff::Timestamp;
use maud::{Markup, html};

use super::attention::notices;
use super::{charts, moment, number};
use crate::catalog::{Publishing, Snapshot, Source, State};
use crate::engine::EngineStatus;
use crate::events::Event;
use crate::http::access::Sizes;
use crate::http::freshness::{self, FreshnessStatus, MartFreshness};
use crate::http::{App, probes};
use crate::ledger;
use crate::watch::WatchMode;

/// Events that are listed.
const EVENTS: usize = 10;

/// All that the page shows, as of one moment.
pub(super) struct View<'s> {
    state: &'s State,
    unready: Vec<String>,
    freshness: freshness::FreshnessDocument<'s>,
    events: Vec<Event>,
    engine: EngineStatus,
    now: Timestamp,
}

impl<'s> View<'s> {
    pub(super) fn of(app: &App, state: &'s State, sizes: Sizes<'_>, now: Timestamp) -> Self {
        Self {
            state,
            unready: probes::reasons(app, state),
            freshness: freshness::FreshnessDocument::of(state, app.settings.max_age, sizes, now),
            events: app.events.newest(usize::MAX),
            engine: app.engine.status(),
            now,
        }
    }

    /// What a tab shows.
    pub(super) fn title(&self) -> &'static str {
        match self.freshness.status() {
            _ if !self.unready.is_empty() => "martd: not ready",
            _ if self.is_rolled_back() => "martd: rolled back",
            _ if self.state.held_back().is_some() => "martd: a build is held",
            FreshnessStatus::Pass => "martd: ready",
            FreshnessStatus::Warn => "martd: marts are late",
            FreshnessStatus::Error => "martd: marts are stale",
        }
    }

    fn is_rolled_back(&self) -> bool {
        self.state.held_back().is_some_and(|held| held.hold.rollback.is_some())
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
                @if self.state.under_way().is_some() { span.badge { "A build is running" } }
                @if self.is_rolled_back() { span.badge.warn { "Rolled back" } }
                @else if self.state.held_back().is_some() { span.badge.warn { "A build is held" } }
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
                    @if let Some(ledger) = snapshot.and_then(Snapshot::vouching) {
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
                        @let what = match (state.under_way(), self.is_rolled_back()) {
                            (Some(_), _) => "Running since",
                            (None, true) => "Not served",
                            (None, false) => "Held build",
                        };
                        (fact(what, html! {
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
                    @if let Some(mirror) = &state.mirror {
                        (fact("Mirror of", html! {
                            code { (mirror.source) }
                            @match (mirror.behind.objects, mirror.succeeded_at) {
                                (0, Some(time)) => { ", equal to it " (moment(time, now)) }
                                (0, None) => {}
                                (objects, _) => { ", " (number(objects)) " objects behind" }
                            }
                        }))
                    }
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
                        table.marts {
                            thead { tr {
                                th scope="col" { "Mart" }
                                th scope="col" { "Status" }
                                th scope="col" { "Newest data" }
                                th scope="col" { "Age against its rule" }
                                th scope="col" .number { "Rows" }
                                th scope="col" .number { "Size" }
                            } }
                            tbody { @for mart in results { (self.mart(mart)) } }
                            tfoot { tr {
                                th scope="row" { (number(results.len() as u64)) (if results.len() == 1 { " mart" } else { " marts" }) }
                                td colspan="3" {}
                                td.number.rows { (rows.map_or_else(unknown, number)) }
                                td.number { (bytes.map_or_else(unknown, size)) }
                            } }
                        }
                    }
                }
            }
        }
    }

    fn mart(&self, mart: &MartFreshness<'_>) -> Markup {
        let served = self.state.snapshot.as_ref().and_then(|s| s.marts.get(mart.name));
        html! {
            tr {
                th scope="row" {
                    details data-mart=(mart.name) {
                        summary { code { (mart.name) }
                            @if mart.orphan { " " span.tag { "orphan" } } }
                        ul.columns { @for column in served.iter().flat_map(|mart| mart.columns()) {
                            li { code { (column.name) } " " span.fine { (column.ty) } }
                        } }
                    }
                }
                td { span class=(badge(mart.status)) { (word(mart.status)) } }
                td {
                    @match mart.max_loaded_at {
                        Some(time) => (moment(time, self.now)),
                        None => "never loaded",
                    }
                }
                td.against { (charts::age(mart)) }
                td.number.rows { (mart.rows.map_or_else(unknown, number)) }
                td.number { (mart.bytes.map_or_else(unknown, size)) }
            }
        }
    }

    fn events(&self) -> Markup {
        html! {
            section.panel aria-labelledby="events-title" {
                h2 #events-title { "What happened" }
                @if self.events.is_empty() { p { "Nothing has happened since martd was started." } } @else {
                    (charts::history(&self.events, self.now))
                    @let told = self.events.iter().filter_map(|event| Some((event.at, told(event)?)));
                    ol.events { @for (at, told) in told.take(EVENTS) {
                        li { (moment(at, self.now)) " " span { (told) } }
                    } }
                }
            }
        }
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn badge(status: FreshnessStatus) -> &'static str {
    match status {
        FreshnessStatus::Pass => "badge pass",
        FreshnessStatus::Warn => "badge warn",
        FreshnessStatus::Error => "badge error",
    }
}

fn word(status: FreshnessStatus) -> &'static str {
    match status {
        FreshnessStatus::Pass => "pass",
        FreshnessStatus::Warn => "warn",
        FreshnessStatus::Error => "error",
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Parquet => "Parquet files",
        Source::Duckdb => "the legacy DuckDB file",
    }
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

/// What happened in words, if it is worth any: that a record came which changed no mart is not.
fn told(event: &Event) -> Option<String> {
    let text = |key: &str| event.data[key].as_str().unwrap_or_default().to_owned();
    Some(match event.kind {
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
                (true, true) => return None,
                (true, false) => removed,
                (false, true) => format!("{}{more}", names.join(", ")),
                (false, false) => format!("{}{more}; {removed}", names.join(", ")),
            };
            format!("published generation {}: {what}", event.data["generation"])
        }
        "held" => format!("held: {}", text("reason")),
        "rolled-back" => text("reason"),
        "released" => "the hold is over".to_owned(),
        "rejected" => format!("rejected {}: {}", text("file"), text("reason")),
        "building" => "a build has begun to write files".to_owned(),
        "recovered" => format!("{} can be read again", text("file")),
        "removed" => format!("{}, which was rejected, is gone", text("file")),
        other => other.to_owned(),
    })
}
