//! Who gives way when all connections are taken.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::engine::Principal;

/// One that has done nothing for this long gives way.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// The connections that are open, the oldest first.
#[derive(Debug)]
pub(super) struct PgPlaces {
    /// Of clients that are known.
    most: usize,
    open: Mutex<Vec<Weak<PgPlace>>>,
}

/// That of one connection.
#[derive(Debug)]
pub(super) struct PgPlace {
    came: Instant,
    held: Mutex<Held>,
    /// It has to give way.
    pub(super) leave: CancellationToken,
}

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    /// Of a client that is known.
    by: Option<Principal>,
    /// Since when it has waited for its client, outside of a transaction.
    idle: Option<Instant>,
}

impl PgPlaces {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    /// The place of a connection whose client is not known yet.
    pub(super) fn newcomer(&self) -> Arc<PgPlace> {
        let place = Arc::new(PgPlace {
            came: Instant::now(),
            held: Mutex::default(),
            leave: CancellationToken::new(),
        });
        let mut open = self.open.lock();
        open.retain(|place| place.strong_count() > 0);
        open.push(Arc::downgrade(&place));
        place
    }

    /// The oldest connection whose client has not said who it is gives way.
    pub(super) fn make_room(&self) {
        let oldest = self.staying().into_iter().find(|(_, held)| held.by.is_none());
        if let Some((oldest, _)) = oldest.filter(|(place, _)| place.came.elapsed() >= SILENT_FOR) {
            oldest.leave.cancel();
        }
    }

    /// The client is known. When all places are taken, whoever has the most gives one up that is idle, if
    /// that is more than this one has. Whether there is a place.
    pub(super) fn enter(&self, place: &PgPlace, client: Principal) -> bool {
        let known: Vec<_> = self
            .staying()
            .into_iter()
            .filter_map(|(place, held)| Some((place, held.by?, held.idle)))
            .collect();
        if known.len() >= self.most {
            let mut counts = HashMap::new();
            known.iter().for_each(|(_, by, _)| *counts.entry(*by).or_insert(0) += 1);
            let own = counts.get(&client).copied().unwrap_or(0);
            let idle = known.iter().filter_map(|(place, by, idle)| {
                Some((place, counts[by], idle.as_ref()?.elapsed()))
            });
            let idle = idle.filter(|(_, count, idle)| *count > own && *idle >= SILENT_FOR);
            let Some((idle, ..)) = idle.max_by_key(|(_, count, idle)| (*count, *idle)) else {
                return false;
            };
            idle.leave.cancel();
        }
        place.held.lock().by = Some(client);
        true
    }

    fn staying(&self) -> Vec<(Arc<PgPlace>, Held)> {
        let places = self.open.lock().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let staying = places.into_iter().filter(|place| !place.leave.is_cancelled());
        staying.map(|place| (Arc::clone(&place), *place.held.lock())).collect()
    }
}

impl PgPlace {
    /// Whether it waits for its client, outside of a transaction.
    pub(super) fn is_idle(&self, is_idle: bool) {
        self.held.lock().idle = is_idle.then(Instant::now);
    }
}
