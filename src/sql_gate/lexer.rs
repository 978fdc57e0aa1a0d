//! The lexer: the check of size and nesting before DuckDB sees the text.
//!
//! Only what the parse itself cannot take is rejected here, on the tokens of the text: what makes
//! the parser or the serializer overflow its stack, run for minutes, or write a tree that is
//! quadratic or exponential in the text. Everything else is checked on the tree. The tokens need
//! not be exactly DuckDB's; where the two could differ, the count here is the larger.

use std::ops::Range;

use super::Rejection;

/// Longest statement, in bytes. The parser's own stack gives up with an error at about 10,000 open
/// parentheses, and DuckDB at an expression depth of 1,000, both well inside this.
pub(super) const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Comments in comments. DuckDB's lexer scans the rest of the text once per level: 30,000 levels
/// run for minutes.
const MAX_COMMENT_DEPTH: usize = 8;
/// Subqueries in subqueries, by their opening parenthesis. `ARRAY(SELECT … ORDER BY …)` is
/// rewritten by the parser with three copies of what it orders by, so each level triples the tree.
const MAX_SUBQUERY_DEPTH: usize = 12;
/// Open parentheses, brackets and braces.
const MAX_BRACKET_DEPTH: usize = 256;
/// Tokens that the parser copies: the operand of a `CASE x WHEN …` into each of its comparisons,
/// and a definition of the `WINDOW` clause into each of its uses. Uncapped, 64 KiB of text make
/// gigabytes of tree.
const MAX_COPIED_TOKENS: u64 = 10_000;
/// Elements of all `ROLLUP`, `CUBE` and `GROUPING SETS` together. The parser multiplies them out,
/// to at most 65,535 sets of as many columns as there are elements.
const MAX_GROUPING_ELEMENTS: usize = 64;

/// Rejects a text that DuckDB's parser must not be given.
pub(super) fn check(sql: &str) -> Result<(), Rejection> {
    if sql.len() > MAX_TEXT_BYTES {
        reject!(None, "the statement is longer than {MAX_TEXT_BYTES} bytes; shorten it");
    }
    if let Some(at) = sql.bytes().position(|byte| byte == 0) {
        reject!(Some(at), "the statement contains a NUL character");
    }
    let tokens = tokens(sql)?;
    brackets(&tokens)?;
    case_operands(&tokens)?;
    windows(&tokens)?;
    grouping_sets(&tokens)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A bare word: keyword, name or number.
    Word,
    /// One character of anything else outside strings and comments.
    Symbol(u8),
    /// A string, a quoted identifier or a dollar-quoted string.
    Quoted,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a str,
    /// Where it begins, in bytes.
    pub(super) at: usize,
}

impl Token<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Where it ends.
    pub(super) fn end(&self) -> usize {
        self.at + self.text.len()
    }

    pub(super) fn is_symbol(&self, symbol: u8) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }
}

/// The tokens of a text.
pub(super) fn tokens(sql: &str) -> Result<Vec<Token<'_>>, Rejection> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            byte if byte.is_ascii_whitespace() || byte == 0x0b => {
                at += 1;
                continue;
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = line_end(bytes, at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = comment_end(bytes, at)?;
                continue;
            }
            quote @ (b'\'' | b'"') => {
                at = quoted_end(bytes, at, quote, false);
                TokenKind::Quoted
            }
            b'e' | b'E' if bytes.get(at + 1) == Some(&b'\'') => {
                at = quoted_end(bytes, at + 1, b'\'', true);
                TokenKind::Quoted
            }
            b'$' if dollar_tag(bytes, at).is_some() => {
                at = dollar_end(bytes, at);
                TokenKind::Quoted
            }
            byte if byte.is_ascii_digit() => {
                at = number_end(bytes, at);
                TokenKind::Word
            }
            byte if byte.is_ascii() && !is_word(byte) => {
                at += 1;
                TokenKind::Symbol(byte)
            }
            _ => {
                at = word_end(sql, at);
                if at == start {
                    at += sql[at..].chars().next().map_or(1, char::len_utf8);
                    continue;
                }
                TokenKind::Word
            }
        };
        tokens.push(Token { kind, text: &sql[start..at], at: start });
    }
    Ok(tokens)
}

/// The statements of a text, between its semicolons, with where each begins. What cannot be told apart
/// is one.
pub fn split(sql: &str) -> Vec<(usize, &str)> {
    let tokens = tokens(sql).unwrap_or_default();
    let ends = tokens.iter().filter(|token| token.is_symbol(b';')).map(|token| token.at);
    let mut start = 0;
    let mut statements = Vec::new();
    for end in ends.chain([sql.len()]) {
        // A statement has a token, not comments alone.
        if tokens.is_empty() || tokens.iter().any(|token| (start..end).contains(&token.at)) {
            statements.push((start, &sql[start..end]));
        }
        start = (end + 1).min(sql.len());
    }
    statements
}

/// The words of a text, quoted ones and symbols too, without comments and blanks.
pub fn words(sql: &str) -> Vec<&str> {
    tokens(sql).unwrap_or_default().into_iter().map(|token| token.text).collect()
}

/// The text with another in the place of each parameter that has one here.
pub fn replace_parameters(sql: &str, texts: &[Option<String>]) -> String {
    let tokens = tokens(sql).unwrap_or_default();
    let edits = tokens.iter().zip(tokens.iter().skip(1)).filter_map(|(dollar, number)| {
        let adjacent = dollar.is_symbol(b'$') && number.at == dollar.at + 1;
        let index = number.text.parse::<usize>().ok().filter(|_| adjacent)?;
        let text = texts.get(index.checked_sub(1)?)?.clone()?;
        Some((dollar.at..number.end(), text))
    });
    edited(sql, edits)
}

/// The text with others in the places of these parts, which come one after the other.
pub(super) fn edited(sql: &str, edits: impl IntoIterator<Item = (Range<usize>, String)>) -> String {
    let (mut edited, mut copied) = (String::with_capacity(sql.len()), 0);
    for (part, text) in edits {
        edited.push_str(&sql[copied..part.start]);
        edited.push_str(&text);
        copied = part.end;
    }
    edited.push_str(&sql[copied..]);
    edited
}

/// Every byte over 0x7f is a letter to DuckDB's lexer.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// DuckDB turns Unicode's spaces into plain ones before it looks for words, so here everything
/// that is not a letter ends one.
fn word_end(sql: &str, start: usize) -> usize {
    sql[start..]
        .char_indices()
        .find(|(_, char)| !char.is_alphanumeric() && !matches!(char, '_' | '$'))
        .map_or(sql.len(), |(length, _)| start + length)
}

/// A word may start right after a number: `0x10` is the number 0 and the name x10.
fn number_end(bytes: &[u8], start: usize) -> usize {
    let digits = |at: usize| {
        let rest = bytes.get(at..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'_').count()
    };
    let end = start + digits(start);
    if !matches!(bytes.get(end), Some(b'e' | b'E')) {
        return end;
    }
    let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
    match digits(end + 1 + sign) {
        0 => end,
        exponent => end + 1 + sign + exponent,
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| matches!(byte, b'\n' | b'\r'))
        .map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], start: usize) -> Result<usize, Rejection> {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => {
                depth += 1;
                at += 2;
                if depth > MAX_COMMENT_DEPTH {
                    reject!(Some(start), "comments are nested more than {MAX_COMMENT_DEPTH} deep");
                }
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    Ok(at)
}

fn quoted_end(bytes: &[u8], open: usize, quote: u8, backslash: bool) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        if backslash && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 2;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// The tag of a dollar-quoted string, dollars included: `$$` or `$name$`. `$1` and `$name` without
/// a second dollar are parameters.
fn dollar_tag(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = bytes[at + 1..].iter().position(|&byte| !is_word(byte))?;
    let end = at + 1 + length;
    let named = !bytes[at + 1].is_ascii_digit();
    (bytes[end] == b'$' && named).then(|| &bytes[at..=end])
}

fn dollar_end(bytes: &[u8], at: usize) -> usize {
    let Some(tag) = dollar_tag(bytes, at) else {
        return at + 1;
    };
    let body = at + tag.len();
    bytes[body..]
        .windows(tag.len())
        .position(|window| window == tag)
        .map_or(bytes.len(), |length| body + length + tag.len())
}

fn brackets(tokens: &[Token<'_>]) -> Result<(), Rejection> {
    const QUERY: &str = "select from with values table describe desc show summarize pivot unpivot";
    let mut open = Vec::new();
    let mut subqueries = 0;
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Symbol(b'(' | b'[' | b'{') => {
                let next = tokens.get(index + 1);
                let subquery = next.is_some_and(|next| QUERY.split(' ').any(|word| next.is(word)));
                subqueries += usize::from(subquery);
                open.push(subquery);
                if open.len() > MAX_BRACKET_DEPTH {
                    reject!(
                        Some(token.at),
                        "brackets are nested more than {MAX_BRACKET_DEPTH} deep"
                    );
                }
                if subqueries > MAX_SUBQUERY_DEPTH {
                    return Err(too_deep(token.at));
                }
            }
            TokenKind::Symbol(b')' | b']' | b'}') => {
                subqueries -= usize::from(open.pop() == Some(true));
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) const MAX_NESTING: usize = MAX_SUBQUERY_DEPTH;

/// One message for the two places that count nesting, here and on the tree.
pub(super) fn too_deep(at: impl Into<Option<usize>>) -> Rejection {
    Rejection::statement(
        format!(
            "subqueries, lambdas and -> are nested or chained more than {MAX_NESTING} deep; name \
             the steps in a WITH clause, or take JSON apart with one path, as in x->'$.a.b.c'"
        ),
        at.into(),
    )
}

/// One open `CASE`, counted in tokens after the parser's copying.
#[derive(Default)]
struct Case {
    operand: u64,
    rest: u64,
    whens: u64,
}

fn case_operands(tokens: &[Token<'_>]) -> Result<(), Rejection> {
    let mut open: Vec<Case> = Vec::new();
    let mut total = 0u64;
    let mut written = 0u64;
    for (index, token) in tokens.iter().enumerate() {
        written += 1;
        let mut size = 1;
        if token.kind == TokenKind::Word && !is_label(tokens, index) {
            if token.is("case") {
                open.push(Case::default());
            } else if token.is("when") {
                if let Some(case) = open.last_mut() {
                    case.whens += 1;
                }
            } else if token.is("end")
                && let Some(case) = open.pop()
            {
                size = case.operand.saturating_mul(case.whens.max(1)).saturating_add(case.rest);
            }
        }
        match open.last_mut() {
            Some(case) if case.whens == 0 => case.operand = case.operand.saturating_add(size),
            Some(case) => case.rest = case.rest.saturating_add(size),
            None => total = total.saturating_add(size),
        }
        let largest = open.iter().map(|case| case.operand).fold(total, u64::saturating_add);
        if largest.saturating_sub(written) > MAX_COPIED_TOKENS {
            reject!(
                Some(token.at),
                "the operand of a CASE is too long for the number of its WHENs; compute it in a \
                 subquery first"
            );
        }
    }
    Ok(())
}

/// Whether a reserved word stands where DuckDB reads it as a name: `t.case`, `AS when`, `end := 1`.
fn is_label(tokens: &[Token<'_>], index: usize) -> bool {
    let before = index.checked_sub(1).map(|before| tokens[before]);
    let after = tokens.get(index + 1);
    before.is_some_and(|token| token.is_symbol(b'.') || token.is("as"))
        || after.is_some_and(|token| token.is_symbol(b':'))
            && !tokens.get(index + 2).is_some_and(|token| token.is_symbol(b':'))
}

fn windows(tokens: &[Token<'_>]) -> Result<(), Rejection> {
    let Some(clause) = tokens.iter().position(|token| token.is("window")) else {
        return Ok(());
    };
    let uses = tokens.iter().filter(|token| token.is("over")).count() as u64;
    let definitions = (tokens.len() - clause) as u64;
    if uses.saturating_mul(definitions) > MAX_COPIED_TOKENS * 10 {
        reject!(
            Some(tokens[clause].at),
            "the WINDOW clause is too long for the number of its uses; write the window where it \
             is used, or compute its expressions in a subquery"
        );
    }
    Ok(())
}

fn grouping_sets(tokens: &[Token<'_>]) -> Result<(), Rejection> {
    let mut elements = 0;
    let mut inside = None;
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Symbol(b'(' | b'[' | b'{') => depth += 1,
            TokenKind::Symbol(b')' | b']' | b'}') => {
                depth = depth.saturating_sub(1);
                inside = inside.filter(|&outside| depth > outside);
            }
            TokenKind::Symbol(b',') if inside.is_some() => elements += 1,
            TokenKind::Word => {
                let opens = |at: usize| tokens.get(at).is_some_and(|token| token.is_symbol(b'('));
                let named = token.is("rollup") || token.is("cube") || token.is("sets");
                if named && opens(index + 1) {
                    elements += 1;
                    inside.get_or_insert(depth);
                }
            }
            _ => {}
        }
        if elements > MAX_GROUPING_ELEMENTS {
            reject!(
                Some(token.at),
                "ROLLUP, CUBE and GROUPING SETS have more than {MAX_GROUPING_ELEMENTS} elements"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> Vec<&str> {
        tokens(sql).unwrap().into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn tokens_are_split_as_duckdb_splits_them() {
        assert_eq!(words("select 'it''s' , \"a\"\"b\""), ["select", "'it''s'", ",", "\"a\"\"b\""]);
        assert_eq!(words(r"E'a\'b' 'a\' x"), [r"E'a\'b'", r"'a\'", "x"]);
        assert_eq!(
            words("$$a'$$ $t$ $$ $t$ $1 $name"),
            ["$$a'$$", "$t$ $$ $t$", "$", "1", "$", "name"]
        );
        assert_eq!(words("a--b\nc /* /* */ ( */ d"), ["a", "c", "d"]);
        assert_eq!(words("'open"), ["'open"]);
        assert_eq!(words("/* open"), Vec::<&str>::new());
        assert_eq!(words("größe１"), ["größe１"]);
        assert_eq!(words("case\u{a0}a\u{200b}b"), ["case", "a", "b"]);
        assert_eq!(
            words("1$$'$$ 0x1f 1e5$$'$$ 1E'a' a$$b"),
            ["1", "$$'$$", "0", "x1f", "1e5", "$$'$$", "1", "E'a'", "a$$b"]
        );
    }

    #[test]
    fn nested_case_operands_are_counted_with_their_copies() {
        let nested = |depth: usize| {
            format!(
                "select {}a{}",
                "case ".repeat(depth),
                " when 1 then 2 when 2 then 3 end".repeat(depth)
            )
        };
        assert!(check(&nested(6)).is_ok());
        assert!(check(&nested(14)).is_err());
        let wide =
            |n: usize| format!("select case {}a{} end", "a+".repeat(n), " when 1 then 2".repeat(n));
        assert!(check(&wide(60)).is_ok());
        assert!(check(&wide(120)).is_err());
        let long = format!("select case a {} end", "when 1 then 2 ".repeat(3000));
        assert!(check(&long).is_ok());
    }
}
