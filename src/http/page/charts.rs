//! Pictures of what happened, and of ages against their rules: SVG in the document, coloured by the style
//! sheet, because the page's policy allows no style of an element's own.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::{moment, span};
use crate::events::Event;
use crate::http::freshness::{FreshnessStatus, MartFreshness};

/// Changes in the strip.
const SHOWN: usize = 100;
/// The strip is at least this long.
const LEAST_SPAN: SignedDuration = SignedDuration::from_mins(1);
/// How far an age bar goes, in ages above which a mart is stale.
const BAR: f64 = 1.25;

/// A row of the strip: its name, its class, and the kinds of events in it.
const LANES: [(&str, &str, &[&str]); 3] = [
    ("published", "pass", &["snapshot"]),
    ("held", "warn", &["held", "rolled-back"]),
    ("rejected", "error", &["rejected"]),
];

/// The last publishes, holds and rejections over time; events come the newest first.
pub(super) fn history(events: &[Event], now: Timestamp) -> Markup {
    let is_shown = |event: &&Event| LANES.iter().any(|(.., kinds)| kinds.contains(&event.kind));
    let Some(first) = events.iter().filter(is_shown).take(SHOWN).last().map(|event| event.at)
    else {
        return html! {};
    };
    let start = first.min(now - LEAST_SPAN);
    let seconds = |at: Timestamp| at.duration_since(start).as_secs_f64();
    let x = |at: Timestamp| format!("{:.2}", 2.0 + 996.0 * seconds(at) / seconds(now));
    // A hold lasts until the next one, or until it is over.
    let end = |number: u64| {
        let ends = |event: &&Event| {
            event.number > number && ["held", "rolled-back", "released"].contains(&event.kind)
        };
        events.iter().rev().find(ends).map_or(now, |event| event.at)
    };
    html! {
        div.history {
            @for (name, class, kinds) in LANES {
                @let lane: Vec<&Event> = events
                    .iter()
                    .filter(|event| kinds.contains(&event.kind) && event.at >= first)
                    .collect();
                span { (name) }
                svg viewBox="0 0 1000 12" preserveAspectRatio="none" role="img" aria-label={ (lane.len()) " " (name) } {
                    @for event in &lane {
                        line class=(class) x1=(x(event.at)) x2=(x(event.at)) y1="0" y2="12" {}
                        @if name == "held" {
                            line class=(class) x1=(x(event.at)) x2=(x(end(event.number))) y1="6" y2="6" {}
                        }
                    }
                }
                span.number { (lane.len()) }
            }
            span {}
            p.ends { (moment(start, now)) span { "now" } }
        }
    }
}

/// A mart's age, and the ages above which it is late and stale.
pub(super) fn age(mart: &MartFreshness<'_>) -> Markup {
    let limits = [mart.criteria.warn_after, mart.criteria.error_after];
    let limits = limits.map(|limit| limit.map(|period| period.seconds()));
    let Some(last) = limits.into_iter().flatten().max() else {
        return html! { span.fine { "no rule" } };
    };
    let x =
        |seconds: f64| format!("{:.1}", (100.0 * seconds / (BAR * last as f64)).clamp(0.0, 100.0));
    let age = mart.max_loaded_at_time_ago_in_s.unwrap_or(f64::MAX);
    let class = match mart.status {
        FreshnessStatus::Pass => "pass",
        FreshnessStatus::Warn => "warn",
        FreshnessStatus::Error => "error",
    };
    let part =
        |word: &str, limit: Option<u64>| limit.map(|limit| format!("{word} after {}", span(limit)));
    let rule = [part("warn", limits[0]), part("error", limits[1])];
    let rule = rule.into_iter().flatten().collect::<Vec<_>>().join(", ");
    html! {
        span.fine { (rule) }
        svg.age viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect.track width="100" height="8" {}
            rect class=(class) width=(x(age)) height="8" {}
            @for limit in limits.into_iter().flatten() {
                line x1=(x(limit as f64)) x2=(x(limit as f64)) y1="0" y2="8" {}
            }
        }
    }
}
