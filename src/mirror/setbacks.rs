//! Objects that came and were not what they should be. They are asked for again after growing pauses, for each time
//! may cost gigabytes; others are not kept waiting.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::object::{Object, ObjectVersion};
use super::plan::Listing;

/// The longest pause of one object.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What is known of such objects, by path.
#[derive(Debug)]
pub(super) struct Setbacks {
    /// The pause after the first time.
    pause: Duration,
    objects: BTreeMap<String, Setback>,
}

#[derive(Debug)]
struct Setback {
    version: ObjectVersion,
    reason: String,
    times: u32,
    due: Instant,
}

impl Setbacks {
    /// None yet; `pause` doubles with each time that an object fails.
    pub(super) fn new(pause: Duration) -> Self {
        Self { pause, objects: BTreeMap::new() }
    }

    /// Takes note that an object was not what it should be.
    pub(super) fn note(&mut self, object: &Object, reason: &str, now: Instant) {
        let Object { path, version } = object;
        let before = self.objects.get(path).filter(|before| before.version == *version);
        let times = before.map_or(0, |before| before.times + 1);
        let pause = self.pause.saturating_mul(1 << times.min(16)).min(LONGEST_PAUSE);
        let (version, reason, due) = (version.clone(), reason.to_owned(), now + pause);
        self.objects.insert(path.clone(), Setback { version, reason, times, due });
    }

    /// Forgets those that are not listed any more, or as others.
    pub(super) fn compare(&mut self, listing: &Listing) {
        self.objects.retain(|path, setback| listing.get(path) == Some(&setback.version));
    }

    /// Takes out of `objects` those whose time has not come. Returns each with what was wrong with it.
    pub(super) fn hold_back(
        &self,
        objects: &mut Vec<Object>,
        now: Instant,
    ) -> Vec<(String, String)> {
        let waiting = |object: &Object| {
            let setback = self.objects.get(&object.path).filter(|setback| setback.due > now)?;
            Some((object.path.clone(), setback.reason.clone()))
        };
        let held = objects.iter().filter_map(waiting).collect();
        objects.retain(|object| waiting(object).is_none());
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(etag: &str) -> Object {
        let version =
            ObjectVersion { size: 1, etag: Some(etag.to_owned()), id: None, modified_ms: 0 };
        Object { path: "a.parquet".to_owned(), version }
    }

    #[test]
    fn an_object_is_asked_for_after_growing_pauses() {
        let mut setbacks = Setbacks::new(Duration::from_secs(5));
        let mut now = Instant::now();
        let is_held = |setbacks: &Setbacks, now| {
            let mut objects = vec![object("one")];
            let held = setbacks.hold_back(&mut objects, now);
            assert_eq!(held.len() + objects.len(), 1);
            held.first().is_some_and(|(path, reason)| path == "a.parquet" && reason == "torn")
        };
        assert!(!is_held(&setbacks, now));
        for seconds in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
            setbacks.note(&object("one"), "torn", now);
            let pause = Duration::from_secs(seconds);
            assert!(is_held(&setbacks, now + pause - Duration::from_millis(1)), "{seconds}");
            now += pause;
            assert!(!is_held(&setbacks, now), "{seconds}");
        }
        // As another one it is asked for at once, and counted anew.
        setbacks.note(&object("one"), "torn", now);
        setbacks.compare(&[("a.parquet".to_owned(), object("two").version)].into());
        assert!(!is_held(&setbacks, now));
        setbacks.note(&object("two"), "torn", now);
        assert!(is_held(&setbacks, now + Duration::from_secs(4)));
        assert!(!is_held(&setbacks, now + Duration::from_secs(5)));
    }
}
