//! Statements that connections keep prepared, and those that are prepared before anyone asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::decoded::{self, Decoded, Part, Picked, Restriction, Way};
use super::duck::{Connection, DuckError, Statement};
use super::forms::{Form, Timed};
use super::gate::Checked;
use super::instance::{ALL_ROWS_VARIABLE, Instance, SCOPE_VARIABLE, Scope};
use super::listing::Listing;
use super::query::{QueryError, resolve};
use super::value::Value;
use crate::background::yield_to_requests;

/// Statements that a connection keeps prepared. Each keeps the files that it reads open.
const PREPARED_PER_CONNECTION: usize = 16;

/// A new version is not kept from being served for longer by what is prepared ahead, and no statement
/// is that takes longer itself.
const AHEAD_AT_MOST: Duration = Duration::from_millis(10);

/// A connection of an instance's pool, and what it has at hand.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) connection: Connection,
    /// The scope that its variables hold.
    scope: Option<Scope>,
    /// Prepared statements, the last used at the end.
    prepared: VecDeque<Prepared>,
}

/// A statement that an instance was asked, under a scope.
#[derive(Debug)]
pub(super) struct Asked {
    sql: Box<str>,
    scope: Scope,
    checked: Arc<Checked>,
    /// Since the instance is there, and not only of one before it.
    is_used: AtomicBool,
}

impl Asked {
    fn new(sql: &str, scope: &Scope, checked: &Arc<Checked>) -> Self {
        let (sql, scope, checked) = (sql.into(), scope.clone(), Arc::clone(checked));
        Self { sql, scope, checked, is_used: AtomicBool::new(false) }
    }

    /// It is asked of this instance.
    pub(super) fn note_use(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }
}

/// The statements that an instance was asked, the last at the end.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Arc<Asked>>);

impl Recent {
    /// So many are prepared ahead when a mart is replaced.
    const MOST: usize = 16;

    fn add(&mut self, asked: Asked) -> Arc<Asked> {
        let same = |known: &&Arc<Asked>| known.sql == asked.sql && known.scope == asked.scope;
        if let Some(known) = self.0.iter().find(same) {
            return Arc::clone(known);
        }
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        let asked = Arc::new(asked);
        self.0.push_back(Arc::clone(&asked));
        asked
    }

    fn used(&self) -> Vec<Arc<Asked>> {
        let used = self.0.iter().filter(|asked| asked.is_used.load(Ordering::Relaxed));
        used.cloned().collect()
    }
}

/// A statement that is kept. A plan may hold the value of a scope, and holds what it reads, so it is
/// kept for the scope that it was prepared under, and for what it reads.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) asked: Arc<Asked>,
    reads: Reads,
    pub(super) statement: Statement,
    /// What the statement's next run leaves out.
    pub(super) restriction: Arc<Restriction>,
    /// The statement that gives the numbers of the rows instead, and what they stand for.
    pub(super) numbers: Option<(Statement, Listed)>,
}

/// A mart, and what a statement that gives the numbers of its rows lists of it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) mart: Arc<Decoded>,
    pub(super) listing: Arc<Listing>,
}

/// What a plan reads: how many marts decoded, and from which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    decoded: usize,
    backwards: bool,
}

impl Reads {
    pub(super) fn form(self) -> Form {
        if self.decoded > 0 { Form::Decoded } else { Form::File }
    }
}

/// Marts that are held decoded, by number.
pub(super) type Held = Vec<(usize, Arc<Decoded>)>;

impl Instance {
    /// The marts that a statement reads, all of which may be read.
    pub(super) fn tables_of(&self, checked: &Checked) -> Result<Vec<usize>, QueryError> {
        let tables = checked.tables.iter().map(|name| resolve(self, name));
        let tables = tables.collect::<Result<Vec<usize>, _>>()?;
        for &table in &tables {
            self.is_readable(table).map_err(QueryError::Unscoped)?;
        }
        Ok(tables)
    }

    /// How a statement reads its marts, of which these are held decoded, in the form that is chosen by
    /// its times.
    pub(super) fn reading(
        self: &Arc<Self>,
        sql: &str,
        checked: &Checked,
        held: Held,
        choose: impl FnOnce(&Timed<'_>) -> Form,
    ) -> (Held, Reads, Option<Timed<'_>>) {
        let backwards = match (&checked.ordering, held.as_slice()) {
            (Some(ordering), [(_, decoded)]) => decoded.is_backwards(ordering),
            _ => false,
        };
        let reads = Reads { decoded: held.len(), backwards };
        // A statement's times are those of what it reads: more marts may be decoded by now, or more of
        // their columns have a dictionary.
        let dictionaries: usize = match checked.hashes {
            true => held.iter().map(|(_, decoded)| decoded.count(Part::Dictionary)).sum(),
            false => 0,
        };
        let timed =
            (!held.is_empty()).then(|| self.runtime().forms.of(&(sql, reads, dictionaries)));
        match timed.as_ref().map_or(Form::File, choose) {
            Form::Decoded => (held, reads, timed),
            Form::File => (Vec::new(), Reads { decoded: 0, backwards: false }, timed),
        }
    }

    /// Prepares what the instance that this one replaces was asked, on as many connections. The
    /// first to ask after a mart was replaced would wait for it.
    pub(super) fn prepare_ahead(self: &Arc<Self>, previous: &Self) {
        let began = Instant::now();
        let asked = previous.recent().used();
        let wanted = if asked.is_empty() { 0 } else { previous.opened() };
        // All are taken before one is given back, so that each is another.
        let taken = (0..wanted).map_while(|_| self.connection().ok());
        let mut connections: Vec<Pooled> = taken.collect();
        for pooled in &mut connections {
            for asked in asked.iter().take_while(|_| began.elapsed() < AHEAD_AT_MOST) {
                self.prepare_on(pooled, asked);
                yield_to_requests();
            }
        }
        connections.into_iter().for_each(|pooled| self.give_back(pooled));
    }

    /// Prepares a statement on a connection; if it cannot be, who asks it next will learn why.
    fn prepare_on(self: &Arc<Self>, pooled: &mut Pooled, asked: &Asked) {
        let Asked { sql, scope, checked, .. } = asked;
        let Ok(tables) = self.tables_of(checked) else { return };
        let held = self.held_decoded(&tables);
        let (held, reads, _) = self.reading(sql, checked, held, |times| times.likely());
        let mut run = Run { instance: self, sql, checked, scope, tables: &tables, held, reads };
        if let Ok((prepared, _picked)) = run.prepare(pooled) {
            pooled.keep(prepared);
        }
    }
}

impl Pooled {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, scope: None, prepared: VecDeque::new() }
    }

    /// Makes the connection see the rows of a scope. The value is bound, never pasted.
    fn enter(&mut self, scope: &Scope) -> Result<(), DuckError> {
        if self.scope.as_ref() == Some(scope) {
            return Ok(());
        }
        self.scope = None;
        let (value, all_rows) = match scope {
            Scope::AllRows => (Value::Null, true),
            Scope::Value(value) => (Value::Varchar(value.clone()), false),
        };
        for (name, value) in
            [(SCOPE_VARIABLE, value), (ALL_ROWS_VARIABLE, Value::Boolean(all_rows))]
        {
            let mut set = self.connection.prepare(&format!("SET VARIABLE {name} = ?"))?;
            set.bind(1, &value)?;
            set.execute()?;
        }
        self.scope = Some(scope.clone());
        Ok(())
    }

    /// Takes a prepared statement out of what is kept.
    fn take(&mut self, sql: &str, scope: &Scope, reads: Reads) -> Option<Prepared> {
        let is_it = |kept: &Prepared| {
            *kept.asked.sql == *sql && kept.asked.scope == *scope && kept.reads == reads
        };
        let place = self.prepared.iter().position(is_it)?;
        self.prepared.remove(place)
    }

    /// What is kept, as text.
    #[cfg(test)]
    pub(super) fn kept(&self) -> impl Iterator<Item = &str> {
        self.prepared.iter().map(|kept| &*kept.asked.sql)
    }

    /// Drops the statements that are kept.
    pub(super) fn forget_prepared(&mut self) {
        self.prepared.clear();
    }

    pub(super) fn keep(&mut self, statement: Prepared) {
        if self.prepared.len() == PREPARED_PER_CONNECTION {
            self.prepared.pop_front();
        }
        self.prepared.push_back(statement);
    }
}

/// A run of a statement that is to be prepared.
pub(super) struct Run<'r> {
    pub(super) instance: &'r Instance,
    pub(super) sql: &'r str,
    pub(super) checked: &'r Arc<Checked>,
    pub(super) scope: &'r Scope,
    pub(super) tables: &'r [usize],
    pub(super) held: Held,
    pub(super) reads: Reads,
}

impl Run<'_> {
    /// The prepared statement, kept or made, and what it binds to for as long as it runs.
    pub(super) fn prepare(&mut self, pooled: &mut Pooled) -> Result<(Prepared, Picked), DuckError> {
        for &table in self.tables {
            self.instance.ensure_view(&pooled.connection, table)?;
        }
        pooled.enter(self.scope)?;
        if let Some(kept) = pooled.take(self.sql, self.scope, self.reads) {
            let picked = self.pick(&kept.restriction);
            return Ok((kept, picked));
        }
        let began = Instant::now();
        let restriction = Arc::default();
        let picked = self.pick(&restriction);
        let statement = pooled.connection.prepare(self.sql)?;
        let numbers = self.numbers(&pooled.connection, &statement);
        let asked = Asked::new(self.sql, self.scope, self.checked);
        let asked = match began.elapsed() < AHEAD_AT_MOST {
            true => self.instance.recent().add(asked),
            false => Arc::new(asked),
        };
        let reads = self.reads;
        Ok((Prepared { asked, reads, statement, restriction, numbers }, picked))
    }

    fn pick(&self, restriction: &Arc<Restriction>) -> Picked {
        let paths = &self.instance.paths().all;
        let way = Way { backwards: self.reads.backwards, hashes: self.checked.hashes };
        decoded::pick(paths, &self.held, way, restriction)
    }

    /// The statement that gives the numbers of rows in the place of this one, if there is such.
    fn numbers(
        &self,
        connection: &Connection,
        statement: &Statement,
    ) -> Option<(Statement, Listed)> {
        let (Some(sql), [(number, mart)]) = (&self.checked.row_numbers, self.held.as_slice())
        else {
            return None;
        };
        let columns = statement.columns();
        if columns.is_empty() {
            return None; // not known before its parameters are
        }
        let listing = Arc::new(Listing::of(*number, mart, columns)?);
        self.instance.ensure_numbered_view(connection, *number).ok()?;
        let numbers = connection.prepare(sql).ok()?;
        if self.checked.page.is_some() {
            self.instance.listings().insert(self.sql.into(), Arc::clone(&listing));
        }
        Some((numbers, Listed { mart: Arc::clone(mart), listing }))
    }
}
