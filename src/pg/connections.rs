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
pub(super) struct OpenConnections {
    /// Of clients that are known.
    most: usize,
    open: Mutex<Vec<Weak<OpenConnection>>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct OpenConnection {
    came: Instant,
    current: Mutex<ConnectionUse>,
    /// It has to give way to another.
    pub(super) leave: CancellationToken,
}

#[derive(Debug, Default, Clone, Copy)]
struct ConnectionUse {
    /// Of a client that is known.
    by: Option<Principal>,
    /// Since when it has waited for its client, outside of a transaction.
    idle: Option<Instant>,
}

impl OpenConnections {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    /// A connection whose client is not known yet.
    pub(super) fn newcomer(&self) -> Arc<OpenConnection> {
        let connection = Arc::new(OpenConnection {
            came: Instant::now(),
            current: Mutex::default(),
            leave: CancellationToken::new(),
        });
        let mut open = self.open.lock();
        open.retain(|connection| connection.strong_count() > 0);
        open.push(Arc::downgrade(&connection));
        connection
    }

    /// The oldest connection whose client has not said who it is gives way.
    pub(super) fn make_room(&self) {
        let oldest = self.staying().into_iter().find(|(_, current)| current.by.is_none());
        if let Some((oldest, _)) =
            oldest.filter(|(connection, _)| connection.came.elapsed() >= SILENT_FOR)
        {
            oldest.leave.cancel();
        }
    }

    /// The client is known. When no more of those may be open, whoever has the most gives one up that is
    /// idle, if that is more than this one has. Whether it may stay.
    pub(super) fn enter(&self, connection: &OpenConnection, client: Principal) -> bool {
        let known: Vec<_> = self
            .staying()
            .into_iter()
            .filter_map(|(connection, current)| Some((connection, current.by?, current.idle)))
            .collect();
        if known.len() >= self.most {
            let mut counts = HashMap::new();
            known.iter().for_each(|(_, by, _)| *counts.entry(*by).or_insert(0) += 1);
            let own = counts.get(&client).copied().unwrap_or(0);
            let idle = known.iter().filter_map(|(connection, by, idle)| {
                Some((connection, counts[by], idle.as_ref()?.elapsed()))
            });
            let idle = idle.filter(|(_, count, idle)| *count > own && *idle >= SILENT_FOR);
            let Some((idle, ..)) = idle.max_by_key(|(_, count, idle)| (*count, *idle)) else {
                return false;
            };
            idle.leave.cancel();
        }
        connection.current.lock().by = Some(client);
        true
    }

    fn staying(&self) -> Vec<(Arc<OpenConnection>, ConnectionUse)> {
        let connections = self.open.lock().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        let staying = connections.into_iter().filter(|connection| !connection.leave.is_cancelled());
        staying.map(|connection| (Arc::clone(&connection), *connection.current.lock())).collect()
    }
}

impl OpenConnection {
    /// Whether it waits for its client, outside of a transaction.
    pub(super) fn is_idle(&self, is_idle: bool) {
        self.current.lock().idle = is_idle.then(Instant::now);
    }
}
