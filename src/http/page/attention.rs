//! What stands on top of the page: everything that is not as it should be, and what to do.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::{moment, number};
use crate::catalog::{Held, State};
use crate::engine::{EngineStatus, Replacement};
use crate::http::freshness::{FreshnessStatus, MartFreshness};
use crate::ledger::NodeKind;
use crate::publish::CANNOT_BE_SERVED;

/// Of a long list, this many items are shown.
const SHOWN: usize = 20;

/// How long it is told that the engine was replaced.
const REPLACED_SHOWN: SignedDuration = SignedDuration::from_hours(1);

/// No build takes longer; that of the alert.
const RUNNING: SignedDuration = SignedDuration::from_hours(1);

/// No download takes longer; that of the alert.
const BEHIND: SignedDuration = SignedDuration::from_mins(15);

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Somebody is not served, or served old data.
    Bad,
    /// It will have to be looked at.
    Odd,
    /// It passes by itself.
    Note,
}

impl Level {
    fn class(self) -> &'static str {
        match self {
            Self::Bad => "notice bad",
            Self::Odd => "notice odd",
            Self::Note => "notice note",
        }
    }
}

/// One matter.
pub(super) struct Notice {
    level: Level,
    title: Markup,
    body: Markup,
}

impl Notice {
    fn new(level: Level, title: impl maud::Render, body: Markup) -> Self {
        Self { level, title: title.render(), body }
    }

    pub(super) fn render(&self) -> Markup {
        html! {
            li class=(self.level.class()) {
                h3 { (self.title) }
                (self.body)
            }
        }
    }
}

/// Everything that wants attention, the worst first.
pub(super) fn notices(
    state: &State,
    unready: &[String],
    results: &[MartFreshness<'_>],
    engine: &EngineStatus,
    now: Timestamp,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    if !unready.is_empty() {
        let body = html! {
            @for reason in unready { p { (reason) } }
            p.do { "Build into the directory that PARQUET_DIR names; the first good build is served." }
        };
        notices.push(Notice::new(Level::Bad, "Not ready", body));
    }
    if let Some(reason) = state.directory.as_ref().filter(|_| state.snapshot.is_some()) {
        let body = html! {
            p { (reason) }
            p.do { "The last snapshot is served. Mount the directory again, or make it readable." }
        };
        notices.push(Notice::new(Level::Bad, "The mart directory cannot be read", body));
    }
    mirror(&mut notices, state, now);
    replaced(&mut notices, engine, now);
    hold(&mut notices, state, now);
    if state.snapshot.as_ref().is_some_and(|snapshot| !snapshot.verified) {
        let body = html! {
            p { "martd was started while a build was held, and serves what is on disk." }
            p.do { "Build until nothing fails. With MARTD_STATE_DIR the last good build survives a restart." }
        };
        notices.push(Notice::new(Level::Odd, "No good build vouches for what is served", body));
    }
    files(&mut notices, state, now);
    marts(&mut notices, results);
    if let Some(reason) = &state.watch_degraded {
        let body = html! { p { "Changes are noticed by polling: " (reason) "." } };
        notices.push(Notice::new(Level::Note, "inotify cannot be had", body));
    }
    notices.sort_by_key(|notice| notice.level);
    notices
}

fn mirror(notices: &mut Vec<Notice>, state: &State, now: Timestamp) {
    let Some(mirror) = &state.mirror else { return };
    let equal = html! {
        @match mirror.succeeded_at {
            Some(time) => { "The directory was last equal to " code { (mirror.source) } " " (moment(time, now)) "." }
            None => { "The directory has not been equal to " code { (mirror.source) } " yet." }
        }
    };
    if mirror.is_silent(now) {
        let body = html! {
            p { "It last wrote its status " (moment(mirror.checked_at, now)) ". " (equal) }
            p.do { "What is here is served. Start " code { "martd mirror" } " again." }
        };
        notices.push(Notice::new(Level::Bad, "The mirror is silent", body));
    } else if let Some(failure) = &mirror.error {
        let body = html! {
            p { @if let Some(object) = &failure.object { code { (object) } ": " }
                (failure.reason) " (" (moment(failure.since, now)) ")" }
            p { (equal) }
            p.do { "What is here is served. The mirror tries again by itself." }
        };
        notices.push(Notice::new(Level::Bad, "The mirror has failed", body));
    } else if mirror.seconds_behind(now) > BEHIND.as_secs() as u64 {
        let body = html! {
            p { (equal) }
            p.do { "See whether downloads are slow, or builds come faster than they can be downloaded." }
        };
        let objects = match mirror.behind.objects {
            1 => "1 object is missing".to_owned(),
            objects => format!("{} objects are missing", number(objects)),
        };
        let title = format!("The mirror is behind: {objects}");
        notices.push(Notice::new(Level::Odd, title, body));
    }
}

fn replaced(notices: &mut Vec<Notice>, engine: &EngineStatus, now: Timestamp) {
    let Some(Replacement { at, reason, detail }) = &engine.last else { return };
    let is_missing = engine.missing.is_some();
    if !is_missing && now.duration_since(*at) > REPLACED_SHOWN {
        return;
    }
    let body = html! {
        p { (moment(*at, now)) ", because the one before " (reason.name()) ": " (detail) "." }
        p.do { "Look for that statement in the log. Other clients noticed a delay at most." }
    };
    let (level, title) = match is_missing {
        true => (Level::Bad, "There is no engine"),
        false => (Level::Odd, "The engine was replaced"),
    };
    notices.push(Notice::new(level, title, body));
}

fn hold(notices: &mut Vec<Notice>, state: &State, now: Timestamp) {
    let Some(held) = &state.held else { return };
    let Held { hold, since } = held;
    if let Some(build) = &hold.rollback {
        let body = html! {
            @if hold.reason.contains(CANNOT_BE_SERVED) { p { (hold.reason) } }
            p.do { "Mend what was wrong, build again, and run " code { "martd rollback --release" } "." }
        };
        let title = html! { "Rolled back to build " (build) ", " (moment(*since, now)) };
        notices.push(Notice::new(Level::Odd, title, body));
    } else if !hold.outstanding.is_empty() {
        outstanding(notices, state, held, now);
    } else if state.held_back().is_some() {
        let body = html! {
            p { (hold.reason) }
            p { (meanwhile(state)) }
            p.do { "If that does not say what to do, run a whole " code { "dbt build" } "." }
        };
        notices.push(Notice::new(
            Level::Bad,
            "A build is held: files that it wrote cannot be had",
            body,
        ));
    }
    pending(notices, held, now);
}

/// What is served while a build is held.
fn meanwhile(state: &State) -> &'static str {
    match &state.snapshot {
        None => "Nothing is served.",
        Some(snapshot) if snapshot.verified => "The last good build is still served.",
        Some(_) => "What is on disk is served, for no good build was kept.",
    }
}

fn outstanding(
    notices: &mut Vec<Notice>,
    state: &State,
    Held { hold, since }: &Held,
    now: Timestamp,
) {
    let of = |kind| hold.outstanding.iter().filter(move |node| node.kind() == kind);
    let kinds = [
        (NodeKind::Failed, "node has failed", "nodes have failed"),
        (NodeKind::Untested, "node is not tested", "nodes are not tested"),
        (NodeKind::Skipped, "node was skipped", "nodes were skipped"),
    ];
    let kinds = kinds.map(|(kind, one, many)| (kind, count(of(kind).count(), one, many)));
    let mut kinds = kinds.iter().filter(|(kind, _)| of(*kind).next().is_some());
    let Some((first, title)) = kinds.next() else { return };
    let list = |kind| {
        html! {
            ul { @for node in of(kind).take(SHOWN) {
                li { code { (node.unique_id) }
                    @if let Some(message) = &node.message { ": " (message) } }
            } }
            (more(of(kind).count()))
        }
    };
    let body = html! {
        p { (meanwhile(state)) " Held " (moment(*since, now))
            @if let Some(build) = &hold.invocation_id { ": build " code { (build) } } }
        (list(*first))
        @for (kind, title) in kinds { details { summary { (title) } (list(*kind)) } }
        p.do { @match first {
            NodeKind::Failed if hold.outstanding[0].can_be_cleared() => { (hold.reason) "." }
            NodeKind::Failed => "Fix this and build it again; the next good build is published as a whole.",
            NodeKind::Untested => "Run the tests; when they pass, the build is published as a whole.",
            NodeKind::Skipped => "Build these; when they succeed, the build is published as a whole.",
        } }
    };
    notices.push(Notice::new(Level::Bad, format!("A build is held: {title}"), body));
}

/// Files of a build that runs. After an hour it may have been killed.
fn pending(notices: &mut Vec<Notice>, Held { hold, since }: &Held, now: Timestamp) {
    let pending = &hold.pending;
    if pending.is_empty() || hold.is_incomplete {
        return;
    }
    let is_late = now.duration_since(*since) > RUNNING;
    let body = html! {
        details open[is_late] {
            summary { "Its files" }
            ul { @for file in pending.iter().take(SHOWN) { li { code { (file.file) } ": " (file.reason) } } }
            (more(pending.len()))
        }
        @if is_late {
            p.do { "If no build runs, one was stopped or two overlapped: run a whole " code { "dbt build" } "." }
        }
    };
    let level = if is_late { Level::Odd } else { Level::Note };
    let title = match is_late {
        true => {
            count(pending.len(), "file is of no finished build", "files are of no finished build")
        }
        false => format!("A build is running: {} so far", count(pending.len(), "file", "files")),
    };
    notices.push(Notice::new(level, title, body));
}

fn files(notices: &mut Vec<Notice>, state: &State, now: Timestamp) {
    let is_served = |file: &str| {
        let name = file.strip_suffix(".parquet").unwrap_or(file);
        state.snapshot.as_ref().is_some_and(|snapshot| snapshot.marts.contains_key(name))
    };
    let list = |faults: &[crate::scan::Fault], rejected: bool| {
        html! {
            ul { @for fault in faults.iter().take(SHOWN) {
                li { code { (fault.file) } ": " (fault.reason) " (" (moment(fault.since, now)) ")"
                    @if rejected && is_served(&fault.file) { "; its last good version is served" } }
            } }
            (more(faults.len()))
        }
    };
    if !state.rejected.is_empty() {
        let body = html! {
            (list(&state.rejected, true))
            p.do { "Rewrite or remove what is rejected." }
        };
        let title = count(state.rejected.len(), "file is rejected", "files are rejected");
        notices.push(Notice::new(Level::Bad, title, body));
    }
    if !state.landing.is_empty() {
        let title = count(state.landing.len(), "file is being written", "files are being written");
        notices.push(Notice::new(Level::Note, title, list(&state.landing, false)));
    }
}

fn marts(notices: &mut Vec<Notice>, results: &[MartFreshness<'_>]) {
    let names = |wanted: &dyn Fn(&MartFreshness<'_>) -> bool| -> Vec<String> {
        results.iter().filter(|mart| wanted(mart)).map(|mart| mart.name.to_owned()).collect()
    };
    let list = |names: &[String]| {
        html! {
            p { @for (index, name) in names.iter().take(SHOWN).enumerate() {
                @if index > 0 { ", " }
                code { (name) }
            } }
            (more(names.len()))
        }
    };
    let aged = |status: FreshnessStatus| {
        names(&|mart| !mart.orphan && mart.status == status && mart.problem.is_none())
    };
    for (status, level, one, many) in [
        (FreshnessStatus::Error, Level::Bad, "mart is stale", "marts are stale"),
        (FreshnessStatus::Warn, Level::Odd, "mart is late", "marts are late"),
    ] {
        let names = aged(status);
        if !names.is_empty() {
            let body = html! {
                (list(&names))
                p.do { "Find out why: dbt's schedule, a held build, or a source that sends nothing." }
            };
            notices.push(Notice::new(level, count(names.len(), one, many), body));
        }
    }
    let problems: Vec<_> = results.iter().filter(|mart| mart.problem.is_some()).collect();
    if !problems.is_empty() {
        let body = html! {
            ul { @for mart in problems.iter().take(SHOWN) {
                li { code { (mart.name) } ": " (mart.problem.as_deref().unwrap_or_default()) }
            } }
            (more(problems.len()))
            p.do { "Correct meta.freshness in the model, or what the message names." }
        };
        let title = count(problems.len(), "mart has no reliable age", "marts have no reliable age");
        notices.push(Notice::new(Level::Odd, title, body));
    }
    let orphans = names(&|mart| mart.orphan);
    if !orphans.is_empty() {
        let body = html! {
            (list(&orphans))
            p.do { "Their models have left the project. They are still served, and left out of the freshness. Remove the files." }
        };
        let title = count(orphans.len(), "mart is orphaned", "marts are orphaned");
        notices.push(Notice::new(Level::Note, title, body));
    }
}

fn count(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

fn more(total: usize) -> Markup {
    html! { @if total > SHOWN { p { "And " (total - SHOWN) " more: see /v1/snapshot." } } }
}
