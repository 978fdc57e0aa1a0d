//! Which marts of an instance are held decoded: those that statements ask for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering as Memory};

use arc_swap::ArcSwapOption;
use tracing::debug;

use super::conditions::{self, Known};
use super::decoded::{Declined, Decoded, Part, Test};
use super::gate::Checked;
use super::instance::{Instance, Scope};
use super::prepared::Held;
use super::query::Parameters;
use super::runtime::Want;
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
                    let instance = Arc::downgrade(self);
                    self.runtime().want(Want::Decoded { instance, mart: number });
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

    /// What is known of the rows of these marts, which a statement reads decoded.
    pub(super) fn known(
        &self,
        checked: &Checked,
        parameters: &Parameters,
        scope: &Scope,
        held: &[(usize, Arc<Decoded>)],
    ) -> Known {
        let mut known = Known { tests: Vec::new(), is_all: true };
        for (number, decoded) in held {
            let (mut tests, is_all) = conditions::tests(decoded, &checked.conditions, parameters);
            known.is_all &= is_all;
            let table = &self.tables()[*number];
            if let (Some(column), Scope::Value(value)) = (self.scope_column(table), scope) {
                let test = conditions::scope_test(decoded, &column.name, value);
                known.is_all &= test.is_some();
                tests.extend(test);
            }
            for test in &tests {
                if let Test::Equals { column, .. } = *test {
                    decoded.wish(column, Part::Index);
                }
            }
            known.tests.push((*number, tests));
        }
        known
    }

    /// Has made what statements wished for.
    pub(super) fn see_to_wishes(&self, held: &[(usize, Arc<Decoded>)]) {
        for (_, decoded) in held {
            for (column, part) in decoded.take_wishes() {
                self.runtime().want(Want::Part { decoded: Arc::downgrade(decoded), column, part });
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
        Decoded::read(
            &self.connect()?,
            self.paths().of(number),
            table.rows,
            &self.runtime().decoded,
        )
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
            let name = |column: usize| held.columns()[column].name().to_owned();
            let parts: Vec<_> = held.made().map(|(column, part)| (name(column), part)).collect();
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
            for (column, part) in &parts {
                if let Some(column) = held.column_named(column) {
                    held.make(column, *part);
                }
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
        self.count(Part::Index)
    }

    /// How many columns of marts that are held decoded have a dictionary.
    pub fn decoded_dictionaries(&self) -> usize {
        self.count(Part::Dictionary)
    }

    /// How many columns of marts that are held decoded have their texts in Arrow's form, too.
    pub fn decoded_texts(&self) -> usize {
        self.count(Part::Texts)
    }

    fn count(&self, part: Part) -> usize {
        let marts = self.warmth().marts.iter().filter_map(|mart| mart.decoded.load_full());
        marts.map(|decoded| decoded.count(part)).sum()
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
