//! Whether a statement reads its marts decoded or as files, where it could do either.
//!
//! Decoded is nearly always faster, but not always: a function of a text may be faster over a file,
//! from whose dictionary DuckDB computes it once for each entry. What a statement does with its
//! columns cannot be told from its text, so both ways are tried and the time that the processor took
//! is remembered.

use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache;

/// Statements whose times are remembered.
const STATEMENTS: usize = 1_024;
/// Runs of each form before they are compared, unless the file takes more than twice the time.
const TRIALS: u32 = 3;
/// The slower form is tried again, for data changes, and gets about this part of the time.
const RECONSIDER: u32 = 512;

/// A form that is slower still is tried as often as one that is so many times slower.
const MOST_TIMES: u32 = 64;

/// What a statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Decoded,
    File,
}

/// The times of statements.
pub(super) struct Forms {
    statements: Cache<u64, Arc<Mutex<Times>>>,
    hasher: RandomState,
    decoded: AtomicU64,
}

impl fmt::Debug for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forms").field("statements", &self.statements.len()).finish_non_exhaustive()
    }
}

/// The times of one statement.
#[derive(Debug, Default)]
struct Times {
    runs: u32,
    decoded: Estimate,
    file: Estimate,
}

#[derive(Debug, Default)]
struct Estimate {
    trials: u32,
    time: Duration,
}

impl Estimate {
    /// Follows faster runs at once and slower ones slowly, for those may have been disturbed.
    fn note(&mut self, time: Duration) {
        self.time = if self.trials == 0 || time < self.time {
            time
        } else {
            self.time + (time - self.time) / 8
        };
        self.trials = self.trials.saturating_add(1);
    }
}

impl Times {
    /// What the next run should read.
    fn choose(&mut self) -> Form {
        self.runs = self.runs.wrapping_add(1);
        if self.decoded.trials < TRIALS {
            return Form::Decoded;
        }
        let clearly_slower = self.file.trials > 0 && self.file.time > 2 * self.decoded.time;
        if self.file.trials < TRIALS && !clearly_slower {
            return Form::File;
        }
        let (faster, slower, [fast, slow]) = if self.decoded.time <= self.file.time {
            (Form::Decoded, Form::File, [self.decoded.time, self.file.time])
        } else {
            (Form::File, Form::Decoded, [self.file.time, self.decoded.time])
        };
        let times_slower = slow.as_nanos() / fast.as_nanos().max(1);
        let times_slower = times_slower.clamp(1, MOST_TIMES.into()) as u32;
        if self.runs.is_multiple_of(RECONSIDER * times_slower) { slower } else { faster }
    }

    /// What most runs read.
    fn likely(&self) -> Form {
        let is_file_faster = self.file.trials > 0 && self.file.time < self.decoded.time;
        if is_file_faster { Form::File } else { Form::Decoded }
    }

    fn note(&mut self, form: Form, time: Duration) {
        match form {
            Form::Decoded => self.decoded.note(time),
            Form::File => self.file.note(time),
        }
    }
}

impl Forms {
    pub(super) fn new() -> Self {
        let decoded = AtomicU64::new(0);
        Self { statements: Cache::new(STATEMENTS), hasher: RandomState::new(), decoded }
    }

    /// How many runs read decoded marts.
    pub(super) fn decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }

    /// One did that has no choice.
    pub(super) fn count_decoded(&self) {
        self.decoded.fetch_add(1, Ordering::Relaxed);
    }

    /// The times of a statement.
    pub(super) fn of(&self, statement: &impl Hash) -> Timed<'_> {
        let key = self.hasher.hash_one(statement);
        let times = self
            .statements
            .get_or_insert_with::<_, Infallible>(&key, || Ok(Arc::default()))
            .unwrap_or_else(|never| match never {});
        Timed { times, decoded: &self.decoded }
    }
}

/// A statement whose runs are timed.
pub(super) struct Timed<'f> {
    times: Arc<Mutex<Times>>,
    decoded: &'f AtomicU64,
}

impl Timed<'_> {
    /// What the next run should read.
    pub(super) fn choose(&self) -> Form {
        let form = self.lock().choose();
        if form == Form::Decoded {
            self.decoded.fetch_add(1, Ordering::Relaxed);
        }
        form
    }

    /// What most runs read.
    pub(super) fn likely(&self) -> Form {
        self.lock().likely()
    }

    /// A run took processors so long.
    pub(super) fn note(&self, form: Form, time: Duration) {
        self.lock().note(form, time);
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time that this thread has had the processor.
pub(super) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(100);
    const SLOW: Duration = Duration::from_micros(200);

    /// The forms of the runs of a statement that takes so long decoded and as a file.
    fn runs(decoded: Duration, file: Duration, count: u32) -> Vec<Form> {
        let forms = Forms::new();
        let run = |_| {
            let timed = forms.of(&"SELECT 1");
            let form = timed.choose();
            timed.note(form, if form == Form::Decoded { decoded } else { file });
            form
        };
        (0..count).map(run).collect()
    }

    #[test]
    fn both_forms_are_tried_and_the_faster_one_stays() {
        let trials = [[Form::Decoded; 3], [Form::File; 3]].concat();
        let first = runs(FAST, SLOW, 20);
        assert_eq!(first[..6], trials);
        assert!(first[6..].iter().all(|form| *form == Form::Decoded));
        let second = runs(SLOW, FAST, 20);
        assert_eq!(second[..6], trials);
        assert!(second[6..].iter().all(|form| *form == Form::File));
    }

    #[test]
    fn a_file_that_is_clearly_slower_is_tried_once() {
        let forms = runs(FAST, 3 * FAST, 20);
        assert_eq!(forms.iter().filter(|form| **form == Form::File).count(), 1);
    }

    #[test]
    fn the_slower_form_gets_another_chance_the_less_often_the_slower_it_is() {
        let again = |times: u32| {
            let forms = runs(times * FAST, FAST, 5_000);
            forms[6..].iter().filter(|form| **form == Form::Decoded).count()
        };
        assert_eq!([again(2), again(9), again(10)], [4, 1, 0]);
    }

    #[test]
    fn one_disturbed_run_changes_no_mind() {
        let mut times = Times::default();
        for _ in 0..TRIALS {
            times.note(Form::Decoded, FAST);
            times.note(Form::File, SLOW);
        }
        times.note(Form::Decoded, SLOW * 4);
        assert_eq!(times.choose(), Form::Decoded);
    }
}
