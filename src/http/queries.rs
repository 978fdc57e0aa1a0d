//! The queries under way by their request ids, so that they can be cancelled.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::access::Caller;
use super::request_id;

/// All queries under way.
#[derive(Debug, Default, Clone)]
pub(super) struct Queries(Arc<Mutex<HashMap<String, Registered>>>);

#[derive(Debug)]
struct Registered {
    cancel: CancellationToken,
    /// Who asked.
    caller: Caller,
    /// Once the answer is being streamed, the token of what makes it.
    stream: Option<CancellationToken>,
}

impl Queries {
    /// Registers a caller's query under this id, or under a fresh one if a query has it already.
    pub(super) fn register(&self, id: String, caller: &Caller) -> QueryHandle {
        let mut queries = self.0.lock();
        let id = if queries.contains_key(&id) { request_id::fresh() } else { id };
        let (cancel, caller) = (CancellationToken::new(), caller.clone());
        queries.insert(id.clone(), Registered { cancel: cancel.clone(), caller, stream: None });
        QueryHandle { id, cancel, queries: self.clone() }
    }

    /// Cancels a caller's own query. `false` when they have none of this id.
    pub(super) fn cancel(&self, id: &str, caller: &Caller) -> bool {
        let queries = self.0.lock();
        let Some(query) = queries.get(id).filter(|query| query.caller.is(caller)) else {
            return false;
        };
        query.cancel.cancel();
        if let Some(stream) = &query.stream {
            stream.cancel();
        }
        true
    }
}

/// A query's place among those under way. Held until its answer has been sent.
#[derive(Debug)]
pub(super) struct QueryHandle {
    id: String,
    cancel: CancellationToken,
    queries: Queries,
}

impl QueryHandle {
    /// The id, which the answer carries.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// From here on the answer is streamed, and cancelling it means this.
    pub(super) fn streams(&self, stream: CancellationToken) {
        if let Some(query) = self.queries.0.lock().get_mut(&self.id) {
            query.stream = Some(stream);
        }
    }

    /// Resolves when the query is cancelled.
    pub(super) async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }
}

impl Drop for QueryHandle {
    fn drop(&mut self) {
        self.queries.0.lock().remove(&self.id);
    }
}
