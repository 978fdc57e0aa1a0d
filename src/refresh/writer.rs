//! The refresh thread: scans, pins, decides what to serve, and swaps it in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::burst::Burst;
use super::changes::Changes;
use super::files::{Files, Sweep};
use super::kept::Kept;
use super::publisher::{PreparedSnapshot, Publisher};
use super::retention::Retention;
use super::{Mailbox, Pulse, RefreshMessage, RefreshSettings};
use crate::catalog::{Catalog, Held, Publishing, Snapshot, Source, State};
use crate::events::Events;
use crate::hooks;
use crate::legacy::{LegacyFile, Trouble};
use crate::marts::build::{BuildResult, FileRejection, Outcome, Pool};
use crate::metrics::{Metrics, ScanReason};
use crate::publish::{self, Decision, Hold, Situation, Target, Unverified, Version};
use crate::watch::{GLANCE_INTERVAL, Watch};

/// How long what is chosen waits for the tables of all its files, where it is not a build.
const TABLES_WITHIN: Duration = Duration::from_secs(1);
/// How often an absent directory is looked for.
const ABSENT_INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait after a database could not be opened.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// After a start, how long a ledger may go unsatisfied before unverified files are served.
const UNVERIFIED_AFTER: Duration = Duration::from_secs(10);

/// How often the legacy file is looked at while it is served or waited for.
const LEGACY_INTERVAL: Duration = Duration::from_millis(100);

/// The refresh thread's state.
pub(super) struct Writer {
    settings: RefreshSettings,
    catalog: Catalog,
    events: Events,
    pool: Arc<Pool>,
    publisher: Publisher,
    hinted: Arc<AtomicBool>,
    pulse: Pulse,
    watch: Watch,
    files: Files,
    /// The legacy file, as long as no mart was published.
    legacy: Option<LegacyFile>,
    next_legacy_look: Instant,
    metrics: Metrics,
    /// When unverified files may be served.
    unverified_at: Instant,
    next_scan: Instant,
    scan_reason: ScanReason,
    /// The changes that are not published yet.
    unsettled: Option<Burst>,
    /// Versions whose tables are being built.
    building: Vec<Arc<Version>>,
    /// What will be served once its tables are there. One at a time: what changes meanwhile is decided
    /// anew then.
    chosen: Option<Target>,
    chosen_at: Instant,
    preparing: bool,
    /// Not before this moment, after a failure.
    retry: Option<Instant>,
    current: Option<Arc<Snapshot>>,
    retention: Retention,
    held: Option<Held>,
    directory: Option<String>,
    /// Why the last snapshot could not be opened.
    unopened: Option<String>,
    kept: Kept,
    /// Whether the log says that no records decide.
    told_of_files: bool,
}

impl Writer {
    pub(super) fn new(
        settings: RefreshSettings,
        (catalog, events): (Catalog, Events),
        pool: Arc<Pool>,
        publisher: Publisher,
        mailbox: Mailbox,
        metrics: Metrics,
        pulse: Pulse,
    ) -> Self {
        let now = Instant::now();
        Self {
            legacy: None,
            next_legacy_look: now,
            files: Files::new(Arc::clone(&metrics.pins)),
            metrics,
            hinted: Arc::clone(&mailbox.hinted),
            pulse,
            watch: Watch::new(settings.watch, move || mailbox.hint()),
            retention: Retention::new(settings.retain_for, settings.retain_count),
            settings,
            catalog,
            events,
            pool,
            publisher,
            building: Vec::new(),
            chosen: None,
            chosen_at: now,
            unverified_at: now + hooks::shortened("unverified", UNVERIFIED_AFTER),
            next_scan: now,
            scan_reason: ScanReason::Timer,
            unsettled: None,
            preparing: false,
            retry: None,
            current: None,
            held: None,
            directory: None,
            unopened: None,
            kept: Kept::default(),
            told_of_files: false,
        }
    }

    /// Begins with what the state directory kept, or else with the legacy file.
    pub(super) fn begin(
        &mut self,
        restored: Option<Target>,
        kept: Kept,
        legacy: Option<LegacyFile>,
    ) {
        self.kept = kept;
        match restored {
            Some(target) => self.choose(target),
            None => self.legacy = legacy,
        }
    }

    pub(super) fn run(&mut self, inbox: &Receiver<RefreshMessage>) {
        loop {
            hooks::stick("refresh");
            self.pulse.loops.fetch_add(1, Ordering::Relaxed);
            let now = Instant::now();
            if self.watch.is_astray(&self.settings.intake.dir) {
                self.scan_reason = ScanReason::Moved;
                self.next_scan = now;
            }
            if now >= self.next_scan {
                self.metrics.scanned(self.scan_reason);
                self.scan(now);
            }
            self.advance(Instant::now());
            let wait = self.next_wake().saturating_duration_since(Instant::now());
            match inbox.recv_timeout(wait) {
                Ok(RefreshMessage::Hint) => {
                    self.hinted.store(false, Ordering::Release);
                    let soon = self.files.next_scan().max(Instant::now());
                    if soon < self.next_scan {
                        self.next_scan = soon;
                        self.scan_reason = ScanReason::Event;
                    }
                }
                Ok(RefreshMessage::Built(outcome)) => self.learn(&outcome),
                Ok(RefreshMessage::Prepared(prepared)) => self.take(*prepared),
                Ok(RefreshMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Looks at the directory and pins what changed.
    fn scan(&mut self, now: Instant) {
        let sweep = match self.settings.intake.dir.open() {
            Ok(dir) => {
                self.watch.ensure(&dir, now);
                self.files.sweep(&dir, now, |name, parts| self.watch.ensure_parts(name, parts))
            }
            Err(error) => {
                self.watch.lost();
                Err(error)
            }
        };
        match sweep {
            Ok(Sweep { changed, landed, look_again }) => {
                landed.into_iter().for_each(|version| self.submit(version));
                self.note_directory(self.files.replaced_by_empty().map(str::to_owned));
                if changed {
                    self.unsettled.get_or_insert(Burst::begin(now)).go_on(now);
                }
                let interval = self.watch.interval();
                (self.next_scan, self.scan_reason) = match look_again {
                    Some(sooner) if sooner < interval => (now + sooner, ScanReason::Recheck),
                    _ => (now + interval, ScanReason::Timer),
                };
            }
            Err(error) => {
                self.note_directory(Some(self.settings.intake.dir.unreadable(&error)));
                self.metrics.unreadable.inc();
                self.next_scan = now + ABSENT_INTERVAL;
                self.scan_reason = ScanReason::Timer;
            }
        }
    }

    fn note_directory(&mut self, problem: Option<String>) {
        if self.directory != problem {
            match &problem {
                Some(reason) => warn!(reason, "the mart directory has a problem"),
                None => {
                    info!(directory = %self.settings.intake.dir.path().display(), "reading marts")
                }
            }
            self.directory = problem;
        }
    }

    /// Has a version's table built, unless there is one of the same content.
    fn submit(&mut self, version: Arc<Version>) {
        if let Some(Ok(table)) = self.pool.verdict(&version.pin.hash()) {
            self.files.learn(&version, &BuildResult::Built(table));
            return;
        }
        self.pool.submit(Arc::clone(&version.pin), version.name.as_str());
        self.building.push(version);
    }

    /// Takes a target for what will be served. Its tables are not given up for newer versions.
    fn choose(&mut self, target: Target) {
        self.retry = None;
        self.unsettled = None;
        for version in target.versions().filter(|version| version.table.get().is_none()) {
            self.pool.want(Arc::clone(&version.pin), version.name.as_str());
            if !self.building.iter().any(|known| Arc::ptr_eq(known, version)) {
                self.building.push(Arc::clone(version));
            }
        }
        self.chosen = Some(target);
        self.chosen_at = Instant::now();
        self.prepare();
    }

    /// One file whose table takes long does not hold up the others, where no ledger binds them together.
    fn go_without(&mut self, now: Instant) {
        let is_late = now >= self.chosen_at + TABLES_WITHIN;
        let Some(target) = self.chosen.take_if(|target| is_late && target.ledger.is_none()) else {
            return;
        };
        let served = self.current.as_ref().filter(|current| current.source == Source::Parquet);
        let served = served.map(|snapshot| &snapshot.target);
        let part = target.built_part(served);
        if !part.marts.is_empty() && !served.is_some_and(|served| served.same_as(&part)) {
            self.preparing = true;
            self.publisher.prepare(part, self.current.clone());
        }
        // What it lacks is chosen again, with what has landed since.
    }

    /// Starts making a snapshot of what was chosen, if all of its tables are there.
    fn prepare(&mut self) {
        if let Some(target) = self.chosen.take_if(|target| target.is_built()) {
            self.preparing = true;
            self.publisher.prepare(target, self.current.clone());
        }
    }

    /// Whether something is on its way to be served.
    fn is_busy(&self) -> bool {
        self.preparing || self.chosen.is_some()
    }

    /// Decides what to serve, starts preparing it if that is new, and stores the state.
    fn advance(&mut self, now: Instant) {
        // While the directory cannot be read, nothing is known: what is served stays.
        let mut has_marts = false;
        self.go_without(now);
        if self.directory.is_none() {
            self.kept.look(self.files.ledger(), self.retention.kept(), &self.metrics.pins);
            let decision = self.decide(now);
            has_marts = decision.target.as_ref().is_some_and(|target| !target.marts.is_empty());
            self.follow(decision, now);
        }
        if now >= self.next_legacy_look {
            self.next_legacy_look = now + LEGACY_INTERVAL;
            if !has_marts {
                self.look_at_legacy(now);
            }
        }
        self.retention.expire(now);
        self.store();
    }

    fn follow(&mut self, decision: Decision, now: Instant) {
        self.note_held(decision.held);
        self.unopened.take_if(|_| decision.target.is_none());
        if let Some(target) = decision.target {
            let served = self.current.as_ref().map(|snapshot| &snapshot.target);
            if served.is_some_and(|served| served.same_as(&target)) {
                if !self.is_busy() {
                    self.unsettled = None;
                }
            } else if !self.is_busy()
                && self.retry.is_none_or(|retry| now >= retry)
                && (decision.settled || self.unsettled.is_none_or(|burst| now >= burst.over()))
            {
                self.choose(target);
            }
        }
    }

    /// While there is no mart to serve, the legacy file is.
    fn look_at_legacy(&mut self, now: Instant) {
        let is_busy = self.is_busy();
        let Some(legacy) = &mut self.legacy else { return };
        if is_busy || self.retry.is_some_and(|retry| now < retry) {
            return;
        }
        if let Some(version) = legacy.look(&self.metrics.pins) {
            self.publisher.prepare_legacy(version);
            self.preparing = true;
            self.retry = None;
        }
    }

    /// Whether the legacy file is served or about to be.
    fn has_legacy(&self) -> bool {
        self.legacy.as_ref().is_some_and(|legacy| match legacy.trouble() {
            None | Some(Trouble::Locked) => true,
            Some(Trouble::Absent | Trouble::Unusable(_)) => self.current.is_some(),
        })
    }

    fn decide(&self, now: Instant) -> Decision {
        let legacy = self.has_legacy();
        let may_be_unverified = self.settings.intake.unverified == Unverified::Serve && !legacy;
        let (files, waiting) = (self.files.good(), self.files.waiting());
        publish::decide(&Situation {
            policy: self.settings.intake.policy,
            unverified_due: may_be_unverified && now >= self.unverified_at,
            legacy,
            ledger: self.files.ledger(),
            awaits_record: self.files.awaits_record(),
            files: &files,
            waiting: &waiting,
            unseen: self.files.unseen(),
            staged: self.files.staged(),
            kept: self.kept.target(),
            published: self
                .current
                .as_ref()
                .filter(|snapshot| snapshot.source == Source::Parquet)
                .map(|snapshot| &snapshot.target),
        })
    }

    fn publishing(&self) -> Publishing {
        let has_ledger = self.files.ledger().is_some();
        match publish::goes_by_builds(self.settings.intake.policy, has_ledger) {
            true => Publishing::Builds,
            false => Publishing::Files,
        }
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = self.next_scan.min(now + GLANCE_INTERVAL);
        if self.legacy.is_some() && !self.is_busy() {
            wake = wake.min(self.next_legacy_look);
        }
        let settled = self.unsettled.filter(|_| !self.is_busy());
        let settled = settled.map(|burst| burst.over());
        let unverified = self.current.is_none().then_some(self.unverified_at);
        // What is over has been acted on, or there was nothing to do: no reason to wake again.
        let dues = [settled, self.retry, unverified];
        for due in dues.into_iter().flatten().filter(|due| *due > now) {
            wake = wake.min(due);
        }
        self.retention.due().map_or(wake, |due| wake.min(due))
    }

    fn note_held(&mut self, hold: Option<Hold>) {
        let (before, served) = (self.held.take(), self.current.as_ref().map(|s| &s.target));
        let overtaken = |hold: &Hold| self.files.overtaken(hold, served);
        let hold = hold.map(|hold| Hold { overtaken: overtaken(&hold), ..hold });
        self.held = hold.map(|hold| Held::after(before, hold));
    }

    /// Takes what building a version came to.
    fn learn(&mut self, Outcome { name, pin, result }: &Outcome) {
        let is_it = |version: &Arc<Version>| Arc::ptr_eq(&version.pin, pin);
        let is_chosen = self.chosen.as_ref().is_some_and(|target| target.versions().any(&is_it));
        if is_chosen && matches!(result, BuildResult::Superseded) {
            return; // it was asked for again since
        }
        let index = self.building.iter().position(is_it);
        let version = index.map(|index| self.building.swap_remove(index));
        let Some(version) = version.or_else(|| self.files.retried(name, pin)) else { return };
        self.files.learn(&version, result);
        if is_chosen && version.table.get().is_none() {
            self.chosen = None; // what is served is decided anew
        }
        self.prepare();
    }

    /// Takes what the publisher made and serves it.
    fn take(&mut self, prepared: PreparedSnapshot) {
        self.preparing = false;
        let snapshot = match prepared {
            PreparedSnapshot::Snapshot(snapshot) => snapshot,
            PreparedSnapshot::Legacy(Ok((snapshot, left_out))) => {
                if let Some(legacy) = &mut self.legacy {
                    legacy.leave_out(left_out);
                }
                Ok(snapshot)
            }
            PreparedSnapshot::Legacy(Err(FileRejection { reason, lasting: true })) => {
                if let Some(legacy) = &mut self.legacy {
                    legacy.reject(reason);
                }
                return;
            }
            PreparedSnapshot::Legacy(Err(FileRejection { reason, .. })) => {
                if let Some(legacy) = &mut self.legacy {
                    legacy.forget();
                }
                Err(reason)
            }
        };
        match snapshot {
            Ok(snapshot) => self.swap(Arc::new(snapshot)),
            Err(reason) => {
                // Nothing is lost: the last snapshot stays, and this is tried again.
                error!(reason, "a snapshot could not be opened");
                self.unopened = Some(reason);
                self.metrics.publish_failures.inc();
                self.retry = Some(Instant::now() + RETRY_INTERVAL);
            }
        }
    }

    fn swap(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.source == Source::Parquet {
            self.legacy = None; // from here on it is out of date
        }
        let changes = Changes::between(self.current.as_deref(), &snapshot);
        changes.count(self.current.as_deref(), &snapshot, &self.metrics);
        info!(
            generation = snapshot.generation,
            snapshot = snapshot.id,
            source = snapshot.source.name(),
            build = snapshot.vouching().map(|ledger| ledger.invocation_id.as_str()),
            verified = snapshot.verified,
            marts = snapshot.marts.len(),
            changed = changes.marts.join(","),
            removed = changes.removed.join(","),
            columns = changes.columns.join(", "),
            "published"
        );
        if self.publishing() == Publishing::Files && !self.told_of_files {
            self.told_of_files = true;
            info!(
                "each file is published as it lands, because no record says which belong together; \
                 docs/ledger.md tells how to publish whole builds"
            );
        }
        self.unopened = None;
        self.files.forget_older_than(&snapshot.target);
        let served = self.current.as_ref().and_then(|current| current.ledger.as_ref());
        if served != snapshot.ledger.as_ref() {
            self.held = None; // what is held from here on is another build
        }
        if let Some(replaced) = self.current.replace(snapshot) {
            self.retention.keep(replaced, Instant::now());
        }
    }

    fn store(&self) {
        let left_out = self.legacy.iter().flat_map(LegacyFile::left_out);
        let legacy_fault = self.legacy.as_ref().and_then(LegacyFile::fault);
        let state = Arc::new(State {
            snapshot: self.current.clone(),
            retained: self.retention.kept().to_vec(),
            gone: Arc::clone(self.retention.gone()),
            publishing: self.publishing(),
            held: self.held.clone(),
            rejected: self.files.rejected().chain(legacy_fault).collect(),
            landing: self.files.landing().collect(),
            ignored: self.files.ignored().iter().chain(left_out).cloned().collect(),
            building: (self.building.len(), self.files.good_count()),
            directory: self.directory.clone(),
            unopened: self.unopened.clone(),
            legacy: self.legacy.as_ref().and_then(|legacy| legacy.trouble().cloned()),
            mirror: self.files.mirror().cloned(),
            watch: self.watch.mode(),
            watch_degraded: self.watch.degraded().map(str::to_owned),
        });
        if let Some(before) = self.catalog.store(Arc::clone(&state)) {
            let dir = self.settings.intake.dir.path();
            let is_there = |file: &str| dir.join(file).symlink_metadata().is_ok();
            self.events.note(&before, &state, is_there);
        }
    }
}
