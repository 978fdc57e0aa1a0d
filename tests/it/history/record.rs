//! What a run wrote down: what the writers did, and what the readers were told.
//!
//! Times are those of one clock that started with the run. Each thing that happened lies between two
//! of them: it may have taken effect at any moment from `began` to its end.

use std::collections::BTreeMap;
use std::time::Duration;

/// Time since the run began.
pub type At = Duration;

/// A mart's name.
pub type Mart = &'static str;

/// A mart's version: grows with each attempt to write it. A build stamps its number.
pub type Version = u64;

/// One attempt to write a mart's file.
#[derive(Debug, Clone)]
pub struct Write {
    pub mart: Mart,
    pub version: Version,
    pub began: At,
    pub fate: Fate,
}

/// How an attempt to write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The file was whole at this time.
    Done(At),
    /// The writer was killed: the version may be there or not, and the one before it may be lost.
    Killed,
    /// What was written does not decode: nobody may ever see it.
    Damaged,
}

/// A state of all models that a ledger vouches for, because nothing is outstanding in it.
#[derive(Debug, Clone)]
pub struct Vouched {
    /// The build that wrote the ledger.
    pub build: u64,
    pub marts: BTreeMap<Mart, Version>,
    /// When the ledger began to be written…
    pub began: At,
    /// …and when it was in its place.
    pub done: At,
}

/// What became of a request to wait for a build whose files and ledger were left alone until it
/// was answered.
#[derive(Debug, Clone)]
pub struct Awaited {
    pub build: u64,
    pub ended: At,
    pub status: u16,
}

/// One question of a reader, and its answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub client: usize,
    pub began: At,
    pub ended: At,
    /// The snapshot that the reader asked for by its id.
    pub asked: Option<String>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone)]
pub enum Outcome {
    Rows { snapshot: String, seen: Vec<(Mart, Content)> },
    Refused { status: u16, problem: String },
}

/// What a scan of one mart showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Every row of this version and no other.
    Whole(Version),
    /// Anything else.
    Torn(String),
}

/// One look at `/v1/snapshot`.
#[derive(Debug, Clone)]
pub struct Look {
    pub began: At,
    pub ended: At,
    pub generation: u64,
    pub snapshot: String,
    pub marts: Vec<String>,
}

/// Everything that happened in a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In the order of their beginnings, mart by mart.
    pub writes: Vec<Write>,
    /// In the order of the ledgers. Without any, every mart is free.
    pub vouched: Vec<Vouched>,
    pub awaited: Vec<Awaited>,
    pub answers: Vec<Answer>,
    pub looks: Vec<Look>,
}

impl History {
    /// Adds what another thread wrote down.
    pub fn absorb(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.vouched.extend(other.vouched);
        self.awaited.extend(other.awaited);
        self.answers.extend(other.answers);
        self.looks.extend(other.looks);
    }

    /// Whether builds write this mart, and the ledger decides what is seen of it.
    pub fn is_ledgered(&self, mart: Mart) -> bool {
        self.vouched.first().is_some_and(|state| state.marts.contains_key(mart))
    }
}

impl Answer {
    /// The snapshot and what was seen of it, if the question was answered.
    pub fn rows(&self) -> Option<(&str, &[(Mart, Content)])> {
        match &self.outcome {
            Outcome::Rows { snapshot, seen } => Some((snapshot, seen)),
            Outcome::Refused { .. } => None,
        }
    }

    /// Whether the newest snapshot was asked for, not one by its id.
    pub fn is_current(&self) -> bool {
        self.asked.is_none()
    }
}
