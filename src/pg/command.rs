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
    /// `DECLARE name CURSOR FOR …`, and the byte at which its query begins.
    Declare(String, usize),
    /// `FETCH count FROM name`: the rows, and the cursor.
    Fetch(u64, String),
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
        ["rollback", "to", ..] => SessionCommand::Nothing("ROLLBACK"),
        ["rollback", "work" | "transaction", "to", ..] => SessionCommand::Nothing("ROLLBACK"),
        ["rollback" | "abort", ..] => SessionCommand::Rollback,
        ["savepoint", ..] => SessionCommand::Nothing("SAVEPOINT"),
        ["release", ..] => SessionCommand::Nothing("RELEASE"),
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
        ["discard", ..] => SessionCommand::Nothing("DISCARD ALL"),
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
                    let query = words[at + 1].as_ptr() as usize - sql.as_ptr() as usize;
                    SessionCommand::Declare(name(words[1]), query)
                }
                _ => SessionCommand::Query,
            }
        }
        ["fetch", how @ .., "from" | "in", _] => match rows(how) {
            Some(rows) => SessionCommand::Fetch(rows, name(words[words.len() - 1])),
            None => SessionCommand::Query,
        },
        ["fetch", _] => SessionCommand::Fetch(1, name(words[1])),
        _ => SessionCommand::Query,
    }
}

/// How many rows `FETCH …` asks for, forwards, for a cursor knows no other direction.
fn rows(how: &[&str]) -> Option<u64> {
    match how {
        [] | ["next"] | ["forward"] => Some(1),
        ["all"] | ["forward", "all"] => Some(u64::MAX),
        [count] | ["forward", count] => count.parse().ok(),
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

/// The tag with which a statement is answered that gives no rows.
pub(super) fn tag(command: &SessionCommand) -> &'static str {
    match command {
        SessionCommand::Begin => "BEGIN",
        SessionCommand::Commit => "COMMIT",
        SessionCommand::Rollback => "ROLLBACK",
        SessionCommand::Set(..) => "SET",
        SessionCommand::Reset(_) => "RESET",
        SessionCommand::Show(_) => "SHOW",
        SessionCommand::Close(None) => "CLOSE CURSOR ALL",
        SessionCommand::Close(_) => "CLOSE CURSOR",
        SessionCommand::Deallocate(None) => "DEALLOCATE ALL",
        SessionCommand::Deallocate(_) => "DEALLOCATE",
        SessionCommand::Declare(..) => "DECLARE CURSOR",
        SessionCommand::Nothing(tag) => tag,
        SessionCommand::Empty | SessionCommand::Query | SessionCommand::Fetch(..) => "SELECT",
    }
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
            ("rollback to savepoint x", SessionCommand::Nothing("ROLLBACK")),
            ("SET extra_float_digits = 3", set("extra_float_digits", "3")),
            ("set session statement_timeout TO '5s'", set("statement_timeout", "5s")),
            ("SET TIME ZONE 'UTC'", set("timezone", "UTC")),
            (
                "show Transaction isolation level",
                SessionCommand::Show("transaction_isolation".to_owned()),
            ),
            ("SHOW TABLES", SessionCommand::Query),
            ("DECLARE \"a B\" CURSOR FOR select 1", SessionCommand::Declare("a B".to_owned(), 25)),
            ("FETCH FORWARD 100 FROM \"a B\"", SessionCommand::Fetch(100, "a B".to_owned())),
            ("fetch backward 1 from x", SessionCommand::Query),
            ("SELECT 1", SessionCommand::Query),
        ] {
            assert_eq!(of(sql), expected, "{sql}");
        }
    }
}
