//! Statements about the session itself, which martd answers without DuckDB.

use crate::sql_gate;

/// What a statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SessionCommand {
    /// Nothing.
    Empty,
    /// For the engine.
    Query,
    Begin,
    Commit,
    Rollback,
    /// `SET name = value`, in lower case.
    Set(String, String),
    /// `RESET name`; of all without one.
    Reset(Option<String>),
    Show(String),
    /// `CLOSE name`; all without one.
    Close(Option<String>),
    /// `DEALLOCATE name`; all without one.
    Deallocate(Option<String>),
    /// `DECLARE name CURSOR FOR …`, the byte at which its query begins, and
    /// whether it is `WITH HOLD`.
    Declare(String, usize, bool),
    /// `FETCH count FROM name`: the rows, and the cursor.
    Fetch(u64, String),
    /// `MOVE count FROM name`
    Move(u64, String),
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    /// `DISCARD`, by its tag.
    Discard(&'static str),
    /// PostgreSQL has it and martd has not.
    NotServed(String),
    /// Has nothing to do here: answered by its tag.
    Nothing(&'static str),
}

/// What a statement is.
pub(super) fn of(sql: &str) -> SessionCommand {
    let words = sql_gate::words(sql);
    let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        [] => SessionCommand::Empty,
        ["begin", ..] | ["start", "transaction", ..] => SessionCommand::Begin,
        ["commit" | "end", ..] => SessionCommand::Commit,
        ["rollback", "to", .., _] | ["rollback", "work" | "transaction", "to", .., _] => {
            SessionCommand::RollbackTo(name(words[words.len() - 1]))
        }
        ["rollback" | "abort", ..] => SessionCommand::Rollback,
        ["savepoint", _] => SessionCommand::Savepoint(name(words[1])),
        ["release", _] | ["release", "savepoint", _] => {
            SessionCommand::Release(name(words[words.len() - 1]))
        }
        ["set", "session", "characteristics", ..] | ["set", "transaction", ..] => {
            SessionCommand::Nothing("SET")
        }
        ["set", "time", "zone", value @ ..] | ["set", "session", "time", "zone", value @ ..] => {
            SessionCommand::Set("timezone".to_owned(), text(&words[words.len() - value.len()..]))
        }
        ["set", "session" | "local", name, "to" | "=", ..] => {
            SessionCommand::Set((*name).to_owned(), text(&words[4..]))
        }
        ["set", name, "to" | "=", ..] => SessionCommand::Set((*name).to_owned(), text(&words[3..])),
        ["set", "session" | "local", "names", ..] | ["set", "names", ..] => {
            SessionCommand::Nothing("SET")
        }
        ["reset", "all"] => SessionCommand::Reset(None),
        ["reset", name] => SessionCommand::Reset(Some((*name).to_owned())),
        ["show", "transaction", "isolation", "level"] => {
            SessionCommand::Show("transaction_isolation".to_owned())
        }
        ["show", "time", "zone"] => SessionCommand::Show("timezone".to_owned()),
        ["show", name] if !matches!(*name, "tables" | "databases" | "schemas") => {
            SessionCommand::Show((*name).to_owned())
        }
        ["discard", "all"] => SessionCommand::Discard("DISCARD ALL"),
        ["discard", "plans"] => SessionCommand::Discard("DISCARD PLANS"),
        ["discard", "sequences"] => SessionCommand::Discard("DISCARD SEQUENCES"),
        ["discard", "temp" | "temporary"] => SessionCommand::Discard("DISCARD TEMP"),
        ["unlisten", ..] => SessionCommand::Nothing("UNLISTEN"),
        ["close", "all"] => SessionCommand::Close(None),
        ["close", _] => SessionCommand::Close(Some(name(words[1]))),
        ["deallocate", "all"] | ["deallocate", "prepare", "all"] => {
            SessionCommand::Deallocate(None)
        }
        ["deallocate", "prepare", _] => SessionCommand::Deallocate(Some(name(words[2]))),
        ["deallocate", _] => SessionCommand::Deallocate(Some(name(words[1]))),
        ["declare", _, rest @ ..] if rest.contains(&"cursor") => {
            match lower.iter().position(|word| *word == "for") {
                Some(at) if words.len() > at + 1 => {
                    let options = &lower[2..at];
                    if options.contains(&"binary") {
                        return SessionCommand::NotServed("DECLARE … BINARY".to_owned());
                    }
                    let holds = options.ends_with(&["with", "hold"]);
                    let query = words[at + 1].as_ptr() as usize - sql.as_ptr() as usize;
                    SessionCommand::Declare(name(words[1]), query, holds)
                }
                _ => SessionCommand::Query,
            }
        }
        [verb @ ("fetch" | "move"), how @ .., _] => {
            let how = how.strip_suffix(&["from"]).or(how.strip_suffix(&["in"])).unwrap_or(how);
            let cursor = name(words[words.len() - 1]);
            match rows(how) {
                Some(rows) if *verb == "fetch" => SessionCommand::Fetch(rows, cursor),
                Some(rows) => SessionCommand::Move(rows, cursor),
                None => {
                    let what = format!("{verb} {}", how.join(" ")).to_ascii_uppercase();
                    SessionCommand::NotServed(format!("{what}, as cursors only go forward,"))
                }
            }
        }
        _ => SessionCommand::Query,
    }
}

/// How many rows `FETCH …` asks for, forwards, for a cursor knows no other direction.
fn rows(how: &[&str]) -> Option<u64> {
    match how {
        [] | ["next"] | ["forward"] => Some(1),
        ["all"] | ["forward", "all"] => Some(u64::MAX),
        [count] | ["forward", count] => count.parse().ok().filter(|count| *count > 0),
        _ => None,
    }
}

/// An identifier as it is meant.
fn name(word: &str) -> String {
    match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => word.to_ascii_lowercase(),
    }
}

/// A value as it is meant.
fn text(words: &[&str]) -> String {
    let bare = |word: &&str| {
        let bare = word.strip_prefix('\'').and_then(|word| word.strip_suffix('\''));
        bare.unwrap_or(word).replace("''", "'")
    };
    words.iter().map(bare).collect::<Vec<_>>().join("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_the_session_are_told_from_queries() {
        let set = |name: &str, value: &str| SessionCommand::Set(name.to_owned(), value.to_owned());
        for (sql, expected) in [
            (" -- nothing\n", SessionCommand::Empty),
            ("BEGIN ISOLATION LEVEL REPEATABLE READ", SessionCommand::Begin),
            ("rollback to savepoint X", SessionCommand::RollbackTo("x".to_owned())),
            ("release \"X\"", SessionCommand::Release("X".to_owned())),
            ("fetch c", SessionCommand::Fetch(1, "c".to_owned())),
            ("fetch all c", SessionCommand::Fetch(u64::MAX, "c".to_owned())),
            ("fetch forward 3 in c", SessionCommand::Fetch(3, "c".to_owned())),
            ("move 2 c", SessionCommand::Move(2, "c".to_owned())),
            ("SET extra_float_digits = 3", set("extra_float_digits", "3")),
            ("set session statement_timeout TO '5s'", set("statement_timeout", "5s")),
            ("SET TIME ZONE 'UTC'", set("timezone", "UTC")),
            (
                "show Transaction isolation level",
                SessionCommand::Show("transaction_isolation".to_owned()),
            ),
            ("SHOW TABLES", SessionCommand::Query),
            (
                "DECLARE \"a B\" CURSOR FOR select 1",
                SessionCommand::Declare("a B".to_owned(), 25, false),
            ),
            ("FETCH FORWARD 100 FROM \"a B\"", SessionCommand::Fetch(100, "a B".to_owned())),
            (
                "fetch backward 1 from x",
                SessionCommand::NotServed(
                    "FETCH BACKWARD 1, as cursors only go forward,".to_owned(),
                ),
            ),
            ("declare c cursor with hold for x", SessionCommand::Declare("c".to_owned(), 31, true)),
            ("SELECT 1", SessionCommand::Query),
        ] {
            assert_eq!(of(sql), expected, "{sql}");
        }
    }
}
