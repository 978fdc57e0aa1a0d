//! What a run came to, in numbers.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::checker::{Kind, Violation};
use super::record::{At, Content, Fate, History, Mart, Version};
use crate::proc::Usage;

pub struct Figures {
    replacements: usize,
    unfinished: usize,
    builds: usize,
    builds_seen: usize,
    snapshots: usize,
    answers: usize,
    by_id: usize,
    violations: BTreeMap<Kind, usize>,
    /// From a file or a ledger in its place to the first answer that shows it, sorted. Versions that
    /// were replaced before anybody saw them are not in here.
    delays: Vec<Duration>,
    usage: (Usage, Usage),
}

impl Figures {
    /// `usage` is that under load, after the warm-up, and that at rest in the end.
    pub fn of(history: &History, violations: &[Violation], usage: (Usage, Usage)) -> Self {
        let done = |fate| matches!(fate, Fate::Done(_));
        let mut by_kind = BTreeMap::new();
        for violation in violations {
            *by_kind.entry(violation.kind).or_default() += 1;
        }
        let ids: HashSet<&str> =
            history.answers.iter().filter_map(|a| a.rows()).map(|(id, _)| id).collect();
        let seen = FirstSeen::of(history);
        let states = history.vouched.iter();
        Self {
            replacements: history.writes.iter().filter(|write| done(write.fate)).count(),
            unfinished: history.writes.iter().filter(|write| !done(write.fate)).count(),
            builds: history.vouched.len(),
            builds_seen: states.filter(|state| seen.shows(&state.marts)).count(),
            snapshots: ids.len(),
            answers: history.answers.len(),
            by_id: history.answers.iter().filter(|a| !a.is_current() && a.rows().is_some()).count(),
            violations: by_kind,
            delays: seen.delays(history),
            usage,
        }
    }

    pub fn builds_seen(&self) -> usize {
        self.builds_seen
    }

    pub fn replacements(&self) -> usize {
        self.replacements
    }

    pub fn answers_by_id(&self) -> usize {
        self.by_id
    }

    fn count(&self, kinds: &[Kind]) -> usize {
        kinds.iter().filter_map(|kind| self.violations.get(kind)).sum()
    }

    fn delay(&self, share: f64) -> Duration {
        let place = (self.delays.len() as f64 * share) as usize;
        self.delays.get(place.min(self.delays.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        let (before, after) = &self.usage;
        let mut line = |what: &str, value: String| writeln!(f, "  {what:<34}{value:>12}");
        line("files replaced", self.replacements.to_string())?;
        line("files damaged, writers killed", self.unfinished.to_string())?;
        line("good builds", self.builds.to_string())?;
        line("good builds seen", self.builds_seen.to_string())?;
        line("snapshots seen", self.snapshots.to_string())?;
        line("answers", self.answers.to_string())?;
        line("of them by a snapshot's id", self.by_id.to_string())?;
        let mixed = self.count(&[Kind::Torn, Kind::Unwritten, Kind::Mixed, Kind::Ambiguous]);
        line("mixed reads", mixed.to_string())?;
        let failed = self.count(&[Kind::Failed, Kind::Missing, Kind::NotRetained]);
        line("failed answers", failed.to_string())?;
        line("backward generations", self.count(&[Kind::Backward]).to_string())?;
        line("late or lost", self.count(&[Kind::Stale]).to_string())?;
        line("replaced to visible, p50", ms(self.delay(0.5)))?;
        line("replaced to visible, p99", ms(self.delay(0.99)))?;
        line("replaced to visible, max", ms(self.delay(1.0)))?;
        line("resident memory, warm", mib(before.resident))?;
        line("resident memory, end", mib(after.resident))?;
        line("descriptors (pins), warm", format!("{} ({})", before.descriptors, before.pins))?;
        line("descriptors (pins), end", format!("{} ({})", after.descriptors, after.pins))
    }
}

/// When each mart's versions were first shown by an answer.
struct FirstSeen(BTreeMap<Mart, BTreeMap<Version, At>>);

impl FirstSeen {
    fn of(history: &History) -> Self {
        let mut first: BTreeMap<Mart, BTreeMap<Version, At>> = BTreeMap::new();
        for answer in &history.answers {
            for (mart, content) in answer.rows().into_iter().flat_map(|(_, seen)| seen) {
                let Content::Whole(version) = content else { continue };
                let at = first.entry(mart).or_default().entry(*version).or_insert(answer.ended);
                *at = answer.ended.min(*at);
            }
        }
        Self(first)
    }

    /// Whether each of these versions was shown.
    fn shows(&self, marts: &BTreeMap<Mart, Version>) -> bool {
        marts.iter().all(|(mart, version)| {
            self.0.get(mart).is_some_and(|versions| versions.contains_key(version))
        })
    }

    /// How long each version that was shown took from its place on disk to an answer.
    fn delays(&self, history: &History) -> Vec<Duration> {
        let shown = |mart: Mart, version: Version| self.0.get(mart)?.get(&version).copied();
        let files = history.writes.iter().filter(|write| !history.is_ledgered(write.mart));
        let files = files.filter_map(|write| match write.fate {
            Fate::Done(done) => Some((done, shown(write.mart, write.version)?)),
            Fate::Killed | Fate::Damaged => None,
        });
        let builds = history.vouched.iter().filter_map(|state| {
            let (mart, _) = state.marts.iter().find(|(_, version)| **version == state.build)?;
            Some((state.done, shown(mart, state.build)?))
        });
        // What was there before the first question waited for it.
        let asked = history.answers.iter().map(|answer| answer.began).min().unwrap_or_default();
        let mut delays: Vec<Duration> = files
            .chain(builds)
            .filter(|(done, _)| *done >= asked)
            .map(|(done, seen)| seen.saturating_sub(done))
            .collect();
        delays.sort_unstable();
        delays
    }
}
