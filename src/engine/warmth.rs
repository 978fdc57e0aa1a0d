//! Which marts of an instance are held decoded: those that statements ask for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering as Memory};

use arc_swap::ArcSwapOption;
use tracing::debug;

use super::conditions::{self, Known};
use super::decoded::{Declined, Decoded, Test};
use super::direction::Direction;
use super::gate::{Checked, Ordering};
use super::instance::{Instance, Scope};
use super::prepared::Held;
use super::query::Parameters;
use super::runtime::Want;
use super::{quote_identifier, quote_literal};
use crate::pin::PinKind;

/// A mart is held decoded from this many statements on. Before, decoding it may cost more than it
/// saves.
const HOT_AFTER: u32 = 8;

/// What an instance knows of its marts, by number.
#[derive(Debug)]
pub(super) struct Warmth {
    marts: Vec<Mart>,
    /// The instance was replaced, and the memory was needed.
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Mart {
    asked: AtomicU32,
    decoded: ArcSwapOption<Decoded>,
}

impl Warmth {
    pub(super) fn new(marts: usize) -> Self {
        let marts = std::iter::repeat_with(Mart::default).take(marts).collect();
        Self { marts, over: AtomicBool::new(false) }
    }

    /// Whether nothing is held decoded any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Memory::Acquire)
    }
}

impl Instance {
    /// Those of these marts that are held decoded. Counts as a statement over them.
    pub(super) fn ask_decoded(self: &Arc<Self>, marts: &[usize]) -> Held {
        let mut decoded = Vec::new();
        for &number in marts {
            let mart = &self.warmth().marts[number];
            match mart.decoded.load_full() {
                Some(held) => decoded.push((number, held)),
                None if mart.asked.fetch_add(1, Memory::Relaxed) + 1 == HOT_AFTER => {
                    self.runtime().want(self, Want::Decoded { mart: number });
                }
                None => {}
            }
        }
        decoded
    }

    /// The same, for who does not ask anything.
    pub(super) fn held_decoded(&self, marts: &[usize]) -> Held {
        let held = |&mart: &usize| Some((mart, self.warmth().marts[mart].decoded.load_full()?));
        marts.iter().filter_map(held).collect()
    }

    /// Whether a page of a mart that is held decoded is read from its end.
    pub(super) fn is_backwards(
        self: &Arc<Self>,
        number: usize,
        decoded: &Decoded,
        ordering: &Ordering,
    ) -> bool {
        match decoded.direction(ordering) {
            Direction::Forwards => false,
            Direction::Backwards => true,
            Direction::Unknown(columns) => {
                for column in columns {
                    self.runtime().want(self, Want::Uniqueness { mart: number, column });
                }
                false
            }
        }
    }

    /// What is known of the rows of these marts, which a statement reads decoded.
    pub(super) fn known(
        self: &Arc<Self>,
        checked: &Checked,
        parameters: &Parameters,
        scope: &Scope,
        held: &[(usize, Arc<Decoded>)],
    ) -> Known {
        let mut known = Known { tests: Vec::new(), is_all: true };
        for (number, decoded) in held {
            for column in decoded.wanted_dictionaries() {
                self.runtime().want(self, Want::Dictionary { mart: *number, column });
            }
            for column in decoded.wanted_texts() {
                self.runtime().want(self, Want::Texts { mart: *number, column });
            }
            let (mut tests, is_all) = conditions::tests(decoded, &checked.conditions, parameters);
            known.is_all &= is_all;
            let table = &self.tables()[*number];
            if let (Some(column), Scope::Value(value)) = (self.scope_column(table), scope) {
                let test = conditions::scope_test(decoded, &column.name, value);
                known.is_all &= test.is_some();
                tests.extend(test);
            }
            for test in &tests {
                if let Test::Equals { column, .. } = *test
                    && decoded.wants_index(column)
                {
                    self.runtime().want(self, Want::Index { mart: *number, column });
                }
            }
            known.tests.push((*number, tests));
        }
        known
    }

    /// Has something made of a mart, if it is still held decoded.
    pub(super) fn improve(&self, number: usize, make: impl FnOnce(&Decoded)) {
        if let Some(decoded) = self.warmth().marts[number].decoded.load_full() {
            make(&decoded);
        }
    }

    /// Finds out whether a column of a mart that is held decoded has each value once.
    pub(super) fn learn_unique(&self, number: usize, column: usize) {
        let decoded = self.warmth().marts[number].decoded.load_full();
        let Some(decoded) = decoded else { return };
        let column = &decoded.columns()[column];
        let sql = format!(
            "SELECT (count(DISTINCT {}) = count(*))::BIGINT FROM read_parquet({})",
            quote_identifier(column.name()),
            quote_literal(self.paths().of(number)),
        );
        match self.number(&sql) {
            Ok(unique) => column.order.learn_unique(unique == Some(1)),
            Err(error) => {
                debug!(mart = self.name(number), %error, "uniqueness cannot be told");
            }
        }
    }

    /// Decodes a mart and holds it, if it may be.
    pub(super) fn hold_decoded(&self, number: usize) {
        match self.decode(number) {
            Ok(decoded) => {
                self.warmth().marts[number].decoded.store(Some(Arc::new(decoded)));
                if self.warmth().is_over() {
                    self.let_go(); // it came too late
                }
            }
            Err(reason) => debug!(mart = self.name(number), %reason, "not held decoded"),
        }
    }

    fn decode(&self, number: usize) -> Result<Decoded, Declined> {
        let table = &self.tables()[number];
        if table.empty || table.pin.kind() != PinKind::Memory {
            return Err(Declined::NotSealed);
        }
        Decoded::read(&self.connect()?, self.paths().of(number), &self.runtime().decoded)
    }

    /// Holds decoded what the instance that this one replaces did, and prepares what it was asked:
    /// statements are as fast over new data as they were over the old. Decodes what has changed of
    /// that, so it is not for the request path.
    pub fn inherit(self: &Arc<Self>, previous: &Self) {
        for (before, mart) in previous.warmth().marts.iter().enumerate() {
            let asked = mart.asked.load(Memory::Relaxed);
            if asked == 0 {
                continue;
            }
            let table = &previous.tables()[before];
            let Some(number) = self.tables().iter().position(|own| own.name == table.name) else {
                continue;
            };
            let own = &self.warmth().marts[number];
            // A mart that is replaced more often than it is asked for becomes hot, too.
            own.asked.store(asked.min(HOT_AFTER - 1), Memory::Relaxed);
            let Some(held) = mart.decoded.load_full() else { continue };
            if table.pin.hash() == self.tables()[number].pin.hash() {
                own.decoded.store(Some(held));
                continue;
            }
            let unique = held.columns().iter().filter(|held| held.order.is_unique() == Some(true));
            let unique: Vec<String> = unique.map(|column| column.name().to_owned()).collect();
            let indexed: Vec<String> = held.indexed().map(str::to_owned).collect();
            let with_dictionary: Vec<String> = held.with_dictionary().map(str::to_owned).collect();
            let with_texts: Vec<String> = held.with_texts().map(str::to_owned).collect();
            drop(held);
            match self.decode(number) {
                Err(Declined::OverBudget) => {
                    // Perhaps without what replaced instances hold, and not both versions at once.
                    self.runtime().let_go_of_replaced();
                    mart.decoded.store(None);
                    previous.forget_prepared();
                    self.hold_decoded(number);
                }
                Ok(decoded) => own.decoded.store(Some(Arc::new(decoded))),
                Err(reason) => debug!(mart = table.name, %reason, "not held decoded"),
            }
            let Some(held) = own.decoded.load_full() else { continue };
            for column in indexed.iter().filter_map(|name| held.column_named(name)) {
                if held.wants_index(column) {
                    held.make_index(column);
                }
            }
            for column in with_dictionary.iter().filter_map(|name| held.column_named(name)) {
                held.make_dictionary(column);
            }
            for column in with_texts.iter().filter_map(|name| held.column_named(name)) {
                held.join_texts(column);
            }
            for (column, _) in held
                .columns()
                .iter()
                .enumerate()
                .filter(|(_, held)| unique.iter().any(|n| n == held.name()))
            {
                self.learn_unique(number, column);
            }
        }
        self.inherit_listings(previous);
        self.prepare_ahead(previous);
    }

    /// This instance was replaced. What waits for its turn, or asks for it by its id, finds decoded
    /// what it did before, until the memory is needed.
    pub fn was_replaced(self: &Arc<Self>) {
        self.runtime().note_replaced(self);
    }

    /// Gives the memory of decoded marts back. What is still asked of this instance reads files.
    pub(super) fn let_go(&self) {
        self.warmth().over.store(true, Memory::Release);
        for mart in &self.warmth().marts {
            mart.decoded.store(None);
            mart.asked.store(HOT_AFTER, Memory::Relaxed);
        }
        self.forget_prepared();
    }

    /// How many marts are held decoded.
    pub fn decoded_marts(&self) -> usize {
        self.warmth().marts.iter().filter(|mart| mart.decoded.load().is_some()).count()
    }

    /// How many columns of marts that are held decoded have an index.
    pub fn decoded_indexes(&self) -> usize {
        let marts = self.warmth().marts.iter().filter_map(|mart| mart.decoded.load_full());
        marts.map(|decoded| decoded.indexed().count()).sum()
    }

    /// How many columns of marts that are held decoded have a dictionary.
    pub fn decoded_dictionaries(&self) -> usize {
        let marts = self.warmth().marts.iter().filter_map(|mart| mart.decoded.load_full());
        marts.map(|decoded| decoded.with_dictionary().count()).sum()
    }

    /// How many columns of marts that are held decoded have their texts in Arrow's form, too.
    pub fn decoded_texts(&self) -> usize {
        let marts = self.warmth().marts.iter().filter_map(|mart| mart.decoded.load_full());
        marts.map(|decoded| decoded.with_texts().count()).sum()
    }

    /// How many statements have read marts that were held decoded, in this process.
    pub fn decoded_statements(&self) -> u64 {
        self.runtime().forms.decoded()
    }

    /// How many statements were looked up in them without DuckDB, in this process.
    pub fn lookups(&self) -> u64 {
        self.runtime().lookups()
    }

    /// The bytes that decoded marts take, over all instances.
    pub fn decoded_bytes(&self) -> u64 {
        self.runtime().decoded.used()
    }
}
