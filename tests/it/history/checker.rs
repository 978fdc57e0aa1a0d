//! Proves from a history that every answer came from exactly one state that the writers really
//! produced, that states were seen in order, and that none was withheld. Nothing here but the
//! history: no clock, no file, no daemon.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use super::record::{Answer, At, Content, Fate, History, Mart, Outcome, Version, Write};

/// What martd promises about time.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// A version that is left in peace is seen after this.
    pub visible_within: Duration,
    /// A replaced snapshot can be read by its id for this long.
    pub retained_for: Duration,
}

/// A broken promise, of one kind, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub evidence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One scan of one mart showed anything but one whole version.
    Torn,
    /// A version that no writer ever finished, or had not begun to write.
    Unwritten,
    /// Versions of several states in one answer.
    Mixed,
    /// One snapshot's id for two contents, or two ids for one content.
    Ambiguous,
    /// An answer older than one that was there before it was asked for.
    Backward,
    /// A mart that was seen before and is not there.
    Missing,
    /// A finished version or build that is not seen in time.
    Stale,
    /// A retained snapshot that is not kept for as long as promised, or another in its place.
    NotRetained,
    /// Any other question that was not answered.
    Failed,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.evidence)
    }
}

/// Everything that is wrong with a history.
pub fn check(history: &History, promise: &Promise) -> Vec<Violation> {
    let mut checker =
        Checker { history, promise, contents: BTreeMap::new(), violations: Vec::new() };
    checker.answers_are_answered();
    checker.scans_are_whole_and_were_written();
    checker.ids_and_contents_are_one_to_one();
    checker.answers_show_one_state();
    checker.states_are_seen_in_order();
    checker.generations_are_seen_in_order();
    checker.marts_stay();
    checker.versions_become_visible();
    checker.builds_become_visible();
    checker.snapshots_are_retained();
    checker.violations
}

struct Checker<'h> {
    history: &'h History,
    promise: &'h Promise,
    /// What is known of each snapshot, from all answers that named it.
    contents: BTreeMap<&'h str, BTreeMap<Mart, Version>>,
    violations: Vec<Violation>,
}

impl<'h> Checker<'h> {
    fn report(&mut self, kind: Kind, evidence: impl Into<String>) {
        self.violations.push(Violation { kind, evidence: evidence.into() });
    }

    fn answers_are_answered(&mut self) {
        for answer in &self.history.answers {
            let Outcome::Refused { status, problem } = &answer.outcome else { continue };
            let kind = match status {
                400 if problem.contains("does not exist") => Kind::Missing,
                410 if !answer.is_current() => continue, // judged with what is retained
                _ => Kind::Failed,
            };
            let client = answer.client;
            self.report(kind, format!("client {client} at {:?}: {status} {problem}", answer.began));
        }
    }

    fn scans_are_whole_and_were_written(&mut self) {
        let writes: HashMap<(Mart, Version), &Write> =
            self.history.writes.iter().map(|write| ((write.mart, write.version), write)).collect();
        for answer in &self.history.answers {
            for (mart, content) in answer.rows().into_iter().flat_map(|(_, seen)| seen) {
                match content {
                    Content::Torn(row) => self.report(Kind::Torn, row),
                    Content::Whole(version) => {
                        let fits = writes.get(&(*mart, *version)).is_some_and(|write| {
                            write.fate != Fate::Damaged && write.began <= answer.ended
                        });
                        if !fits {
                            let at = answer.ended;
                            let what = format!("version {version} of {mart}, seen at {at:?}");
                            self.report(Kind::Unwritten, what);
                        }
                    }
                }
            }
        }
    }

    fn ids_and_contents_are_one_to_one(&mut self) {
        for answer in &self.history.answers {
            let Some((id, seen)) = answer.rows() else { continue };
            for (mart, content) in seen {
                let Content::Whole(version) = content else { continue };
                let known = self.contents.entry(id).or_default();
                let first = *known.entry(mart).or_insert(*version);
                if first != *version {
                    let what = format!("{id} is {mart} {first} in one scan, {version} in another");
                    self.report(Kind::Ambiguous, what);
                }
            }
        }
        let mut ids: HashMap<&BTreeMap<Mart, Version>, &str> = HashMap::new();
        let mut twice = Vec::new();
        for (id, content) in self.whole_contents() {
            if let Some(other) = ids.insert(content, id) {
                twice.push(format!("{id} and {other} both are {content:?}"));
            }
        }
        twice.into_iter().for_each(|what| self.report(Kind::Ambiguous, what));
    }

    /// The snapshots of which every mart was seen.
    fn whole_contents(&self) -> impl Iterator<Item = (&'h str, &BTreeMap<Mart, Version>)> {
        let most = self.contents.values().map(BTreeMap::len).max().unwrap_or(0);
        self.contents.iter().map(|(id, content)| (*id, content)).filter(move |c| c.1.len() == most)
    }

    /// Of the marts that builds write, a snapshot shows the version set of one vouched build, and not
    /// before its ledger was written.
    fn answers_show_one_state(&mut self) {
        if self.history.vouched.is_empty() {
            return;
        }
        let mut first_seen: HashMap<&str, At> = HashMap::new();
        for answer in &self.history.answers {
            let Some((id, _)) = answer.rows() else { continue };
            let first = first_seen.entry(id).or_insert(answer.ended);
            *first = answer.ended.min(*first);
        }
        let mut mixed = Vec::new();
        for (id, content) in &self.contents {
            let of_builds: Vec<_> =
                content.iter().filter(|(mart, _)| self.history.is_ledgered(mart)).collect();
            let at = first_seen[id];
            let vouched = self.history.vouched.iter().any(|state| {
                state.began <= at && of_builds.iter().all(|(mart, v)| state.marts[*mart] == **v)
            });
            if !vouched {
                mixed.push(format!("snapshot {id}, seen at {at:?}, shows {of_builds:?}"));
            }
        }
        mixed.into_iter().for_each(|what| self.report(Kind::Mixed, what));
    }

    /// Versions only grow. So whoever asks after an answer was there sees none that is older, and
    /// snapshots have one order that is the same for all marts.
    fn states_are_seen_in_order(&mut self) {
        let mut per_mart: BTreeMap<Mart, Vec<Sighting>> = BTreeMap::new();
        for answer in self.history.answers.iter().filter(|answer| answer.is_current()) {
            for (mart, content) in answer.rows().into_iter().flat_map(|(_, seen)| seen) {
                if let Content::Whole(version) = content {
                    per_mart.entry(mart).or_default().push(Sighting::of(answer, *version));
                }
            }
        }
        for awaited in self.history.awaited.iter().filter(|awaited| awaited.status == 200) {
            let state = self.history.vouched.iter().find(|state| state.build == awaited.build);
            for (mart, version) in state.into_iter().flat_map(|state| &state.marts) {
                let at = awaited.ended;
                let sighting = Sighting { began: at, ended: at, value: *version };
                per_mart.entry(mart).or_default().push(sighting);
            }
        }
        for (mart, sightings) in per_mart {
            for (newer, older) in out_of_order(sightings) {
                let what = format!(
                    "{mart} {} was seen at {:?}, and {} was asked for at {:?}",
                    newer.value, newer.ended, older.value, older.began
                );
                self.report(Kind::Backward, what);
            }
        }

        let mut contents: Vec<_> = self.whole_contents().map(|(_, content)| content).collect();
        contents.sort_by(|a, b| a.values().cmp(b.values()));
        let crossed: Vec<String> = contents
            .windows(2)
            .filter(|pair| pair[0].values().zip(pair[1].values()).any(|(a, b)| a > b))
            .map(|pair| format!("{:?} and {:?} come before each other", pair[0], pair[1]))
            .collect();
        crossed.into_iter().for_each(|what| self.report(Kind::Backward, what));
    }

    fn generations_are_seen_in_order(&mut self) {
        let looks = &self.history.looks;
        let sightings = looks.iter().map(|look| Sighting {
            began: look.began,
            ended: look.ended,
            value: look.generation,
        });
        for (newer, older) in out_of_order(sightings.collect()) {
            let (newer, older) = (newer.value, older.value);
            self.report(Kind::Backward, format!("generation {older} was seen after {newer}"));
        }
        let mut ids: BTreeMap<u64, &str> = BTreeMap::new();
        for look in looks {
            let first = *ids.entry(look.generation).or_insert(&look.snapshot);
            if first != look.snapshot {
                let what =
                    format!("generation {} is {first} and {}", look.generation, look.snapshot);
                self.report(Kind::Ambiguous, what);
            }
        }
        // A later generation has later contents.
        let known: Vec<_> =
            ids.iter().filter_map(|(number, id)| Some((number, self.contents.get(id)?))).collect();
        let backward: Vec<String> = known
            .windows(2)
            .filter(|pair| {
                let (before, after) = (pair[0].1, pair[1].1);
                before.iter().any(|(mart, old)| after.get(mart).is_some_and(|new| new < old))
            })
            .map(|pair| format!("generation {:?} is older than {:?}", pair[1], pair[0]))
            .collect();
        backward.into_iter().for_each(|what| self.report(Kind::Backward, what));
    }

    fn marts_stay(&mut self) {
        let mut looks: Vec<_> = self.history.looks.iter().collect();
        looks.sort_by_key(|look| look.generation);
        for pair in looks.windows(2) {
            for mart in pair[0].marts.iter().filter(|mart| !pair[1].marts.contains(mart)) {
                let generation = pair[1].generation;
                self.report(Kind::Missing, format!("{mart} is not in generation {generation}"));
            }
        }
    }

    /// A version that was finished is seen in time, or a later one is. A version that an unfinished
    /// write followed in less than that time may be lost, for nobody may have read it.
    fn versions_become_visible(&mut self) {
        let within = self.promise.visible_within;
        let mut due: BTreeMap<Mart, Vec<(At, Version)>> = BTreeMap::new();
        let mut writes = self.history.writes.iter().peekable();
        while let Some(write) = writes.next() {
            let Fate::Done(done) = write.fate else { continue };
            let lost = writes.peek().is_some_and(|next| {
                next.mart == write.mart
                    && !matches!(next.fate, Fate::Done(_))
                    && next.began < done + within
            });
            if !lost && !self.history.is_ledgered(write.mart) {
                due.entry(write.mart).or_default().push((done + within, write.version));
            }
        }
        for answer in self.history.answers.iter().filter(|answer| answer.is_current()) {
            for (mart, content) in answer.rows().into_iter().flat_map(|(_, seen)| seen) {
                let Content::Whole(seen) = content else { continue };
                let due = due.get(mart).map_or(&[][..], Vec::as_slice);
                let place = due.partition_point(|(at, _)| *at <= answer.began);
                if let Some((at, version)) = due[..place].last().filter(|(_, due)| seen < due) {
                    let what = format!("{mart} {version} was due at {at:?}, and {seen} was seen");
                    self.report(Kind::Stale, format!("{what} at {:?}", answer.began));
                }
            }
        }
    }

    /// A build that somebody waited for is served. That whoever asks after that sees it or a later one
    /// is a matter of order.
    fn builds_become_visible(&mut self) {
        for awaited in self.history.awaited.iter().filter(|awaited| awaited.status != 200) {
            let (build, status) = (awaited.build, awaited.status);
            self.report(Kind::Stale, format!("waiting for build {build} ended with {status}"));
        }
    }

    fn snapshots_are_retained(&mut self) {
        // A snapshot was the current one at least until this.
        let mut current: HashMap<&str, At> = HashMap::new();
        for answer in self.history.answers.iter().filter(|answer| answer.is_current()) {
            if let Some((id, _)) = answer.rows() {
                let last = current.entry(id).or_default();
                *last = answer.began.max(*last);
            }
        }
        for answer in &self.history.answers {
            let Some(asked) = &answer.asked else { continue };
            let kept = current.get(asked.as_str()).copied().unwrap_or_default();
            match &answer.outcome {
                Outcome::Rows { snapshot, .. } if snapshot != asked => {
                    self.report(Kind::NotRetained, format!("{asked} asked for, {snapshot} came"));
                }
                Outcome::Refused { status: 410, .. }
                    if answer.ended < kept + self.promise.retained_for =>
                {
                    let what = format!("{asked} was replaced after {kept:?}");
                    let when = answer.ended;
                    self.report(Kind::NotRetained, format!("{what}, and gone at {when:?}"));
                }
                _ => {}
            }
        }
    }
}

/// A value that only grows, seen at some moment between two.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    began: At,
    ended: At,
    value: u64,
}

impl Sighting {
    fn of(answer: &Answer, value: u64) -> Self {
        Self { began: answer.began, ended: answer.ended, value }
    }
}

/// Pairs in which the first was there before the second was asked for, and yet is newer.
fn out_of_order(sightings: Vec<Sighting>) -> Vec<(Sighting, Sighting)> {
    let mut by_end = sightings.clone();
    by_end.sort_by_key(|sighting| sighting.ended);
    let mut by_beginning = sightings;
    by_beginning.sort_by_key(|sighting| sighting.began);

    let mut pairs = Vec::new();
    let mut newest: Option<Sighting> = None;
    let mut ended = by_end.into_iter().peekable();
    for sighting in by_beginning {
        while let Some(before) = ended.next_if(|before| before.ended < sighting.began) {
            if newest.is_none_or(|newest| newest.value < before.value) {
                newest = Some(before);
            }
        }
        pairs.extend(newest.filter(|newest| newest.value > sighting.value).map(|n| (n, sighting)));
    }
    pairs
}
