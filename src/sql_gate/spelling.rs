//! What is PostgreSQL's and DuckDB's parser refuses, or reads in another way than it can be told by.

use super::lexer::{Token, TokenKind, edited, tokens};

/// The text with `LIKE ANY (…)` and its kin, which DuckDB's parser refuses, as `= ANY (martd_like_any(…))`;
/// and with `float`, which is PostgreSQL's `double precision`.
pub(super) fn respell(sql: &str) -> String {
    let tokens = tokens(sql).unwrap_or_default();
    let mut edits = Vec::new();
    let word = |at: usize, words: &[&str]| {
        tokens.get(at).is_some_and(|token: &Token<'_>| {
            token.kind == TokenKind::Word
                && words.iter().any(|word| token.text.eq_ignore_ascii_case(word))
        })
    };
    let symbol = |at: usize, byte: u8| tokens.get(at).is_some_and(|token| token.is_symbol(byte));
    for at in 0..tokens.len() {
        if word(at, &["like", "ilike"])
            && word(at + 1, &["any", "some", "all"])
            && symbol(at + 2, b'(')
            && !word(at + 3, &["select", "with", "values", "table", "from"])
            && let Some(close) = closing(&tokens, at + 2)
        {
            let negated = at > 0 && word(at - 1, &["not"]);
            let start = if negated { tokens[at - 1].at } else { tokens[at].at };
            let not = if negated { "not_" } else { "" };
            let like = tokens[at].text.to_ascii_lowercase();
            let which = if word(at + 1, &["all"]) { "all" } else { "any" };
            let open = tokens[at + 2].at + 1;
            edits.push((start..open, format!("= ANY (martd_{not}{like}_{which}(")));
            edits.push((tokens[close].at..tokens[close].at, ")".to_owned()));
        }
        // `x::float`, and `CAST(x AS float)`.
        let is_type = symbol(at, b':') && at > 0 && symbol(at - 1, b':') && !symbol(at + 2, b'(')
            || word(at, &["as"]) && symbol(at + 2, b')');
        if is_type && word(at + 1, &["float"]) {
            edits.push((tokens[at + 1].at..tokens[at + 1].end(), "double".to_owned()));
        }
    }
    edits.sort_by_key(|(part, _)| part.start);
    edited(sql, edits)
}

/// The token that closes what the one at `open` opens.
fn closing(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    (open..tokens.len()).find(|&at| {
        depth += usize::from(tokens[at].is_symbol(b'('));
        depth -= usize::from(tokens[at].is_symbol(b')'));
        depth == 0
    })
}
