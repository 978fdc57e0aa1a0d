//! Statements about the session itself, which martd answers without DuckDB.

use crate::sql_gate;

/// What a statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
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
pub(super) fn of(sql: &str) -> Command {
    let words = sql_gate::words(sql);
    let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        [] => Command::Empty,
        ["begin", ..] | ["start", "transaction", ..] => Command::Begin,
        ["commit" | "end", ..] => Command::Commit,
        ["rollback", "to", ..] => Command::Nothing("ROLLBACK"),
        ["rollback", "work" | "transaction", "to", ..] => Command::Nothing("ROLLBACK"),
        ["rollback" | "abort", ..] => Command::Rollback,
        ["savepoint", ..] => Command::Nothing("SAVEPOINT"),
        ["release", ..] => Command::Nothing("RELEASE"),
        ["set", "session", "characteristics", ..] | ["set", "transaction", ..] => {
            Command::Nothing("SET")
        }
        ["set", "time", "zone", value @ ..] | ["set", "session", "time", "zone", value @ ..] => {
            Command::Set("timezone".to_owned(), text(&words[words.len() - value.len()..]))
        }
        ["set", "session" | "local", name, "to" | "=", ..] => {
            Command::Set((*name).to_owned(), text(&words[4..]))
        }
        ["set", name, "to" | "=", ..] => Command::Set((*name).to_owned(), text(&words[3..])),
        ["set", "session" | "local", "names", ..] | ["set", "names", ..] => Command::Nothing("SET"),
        ["reset", "all"] => Command::Reset(None),
        ["reset", name] => Command::Reset(Some((*name).to_owned())),
        ["show", "transaction", "isolation", "level"] => {
            Command::Show("transaction_isolation".to_owned())
        }
        ["show", "time", "zone"] => Command::Show("timezone".to_owned()),
        ["show", name] if !matches!(*name, "tables" | "databases" | "schemas") => {
            Command::Show((*name).to_owned())
        }
        ["discard", ..] => Command::Nothing("DISCARD ALL"),
        ["unlisten", ..] => Command::Nothing("UNLISTEN"),
        ["close", "all"] => Command::Close(None),
        ["close", _] => Command::Close(Some(name(words[1]))),
        ["deallocate", "all"] | ["deallocate", "prepare", "all"] => Command::Deallocate(None),
        ["deallocate", "prepare", _] => Command::Deallocate(Some(name(words[2]))),
        ["deallocate", _] => Command::Deallocate(Some(name(words[1]))),
        ["declare", _, rest @ ..] if rest.contains(&"cursor") => {
            match lower.iter().position(|word| *word == "for") {
                Some(at) if words.len() > at + 1 => {
                    let query = words[at + 1].as_ptr() as usize - sql.as_ptr() as usize;
                    Command::Declare(name(words[1]), query)
                }
                _ => Command::Query,
            }
        }
        ["fetch", how @ .., "from" | "in", _] => match rows(how) {
            Some(rows) => Command::Fetch(rows, name(words[words.len() - 1])),
            None => Command::Query,
        },
        ["fetch", _] => Command::Fetch(1, name(words[1])),
        _ => Command::Query,
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
pub(super) fn tag(command: &Command) -> &'static str {
    match command {
        Command::Begin => "BEGIN",
        Command::Commit => "COMMIT",
        Command::Rollback => "ROLLBACK",
        Command::Set(..) => "SET",
        Command::Reset(_) => "RESET",
        Command::Show(_) => "SHOW",
        Command::Close(None) => "CLOSE CURSOR ALL",
        Command::Close(_) => "CLOSE CURSOR",
        Command::Deallocate(None) => "DEALLOCATE ALL",
        Command::Deallocate(_) => "DEALLOCATE",
        Command::Declare(..) => "DECLARE CURSOR",
        Command::Nothing(tag) => tag,
        Command::Empty | Command::Query | Command::Fetch(..) => "SELECT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_the_session_are_told_from_queries() {
        let set = |name: &str, value: &str| Command::Set(name.to_owned(), value.to_owned());
        for (sql, expected) in [
            (" -- nothing\n", Command::Empty),
            ("BEGIN ISOLATION LEVEL REPEATABLE READ", Command::Begin),
            ("rollback to savepoint x", Command::Nothing("ROLLBACK")),
            ("SET extra_float_digits = 3", set("extra_float_digits", "3")),
            ("set session statement_timeout TO '5s'", set("statement_timeout", "5s")),
            ("SET TIME ZONE 'UTC'", set("timezone", "UTC")),
            ("show Transaction isolation level", Command::Show("transaction_isolation".to_owned())),
            ("SHOW TABLES", Command::Query),
            ("DECLARE \"a B\" CURSOR FOR select 1", Command::Declare("a B".to_owned(), 25)),
            ("FETCH FORWARD 100 FROM \"a B\"", Command::Fetch(100, "a B".to_owned())),
            ("fetch backward 1 from x", Command::Query),
            ("SELECT 1", Command::Query),
        ] {
            assert_eq!(of(sql), expected, "{sql}");
        }
    }
}
