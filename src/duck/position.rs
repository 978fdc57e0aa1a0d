//! Where in a statement DuckDB's error points to.

/// The byte of `sql` under the caret of DuckDB's message, which quotes the line (or a part of it,
/// between ellipses) below `LINE n: `. `None` without a caret, or where characters of double width
/// make its column uncertain.
pub fn of_caret(sql: &str, message: &str) -> Option<usize> {
    let (_, quoted) = message.rsplit_once("\nLINE ")?;
    let (number, rest) = quoted.split_once(": ")?;
    let (line, caret) = rest.split_once('\n')?;
    let column = caret.find('^')?.checked_sub("LINE : ".len() + number.len())?;

    const CUT: &str = "...";
    let head = if line.starts_with(CUT) { CUT.len() } else { 0 };
    let shown = line[head..].strip_suffix(CUT).unwrap_or(&line[head..]);
    let column = column.checked_sub(head)?;
    let before: String = shown.chars().take(column).collect();
    if before.chars().any(is_wide) {
        return None;
    }
    let number: usize = number.parse().ok()?;
    let start: usize = sql.split_inclusive('\n').take(number.checked_sub(1)?).map(str::len).sum();
    let text = sql.get(start..)?.lines().next()?;
    // What is cut at both ends may be there twice; then nobody knows which is meant.
    let found = text.find(shown)?;
    (text.rfind(shown) == Some(found)).then_some(start + found + before.len())
}

/// From the Hangul letters on, characters may take two columns; combining ones take none.
fn is_wide(character: char) -> bool {
    ('\u{300}'..'\u{370}').contains(&character) || character >= '\u{1100}'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duck::Database;

    #[test]
    fn an_error_points_to_where_it_is_in_the_statement() {
        let duckdb = Database::open_in_memory(&[]).unwrap().connect().expect("DuckDB opens");
        duckdb.execute("CREATE TABLE t AS SELECT 1 AS x").expect("a table");
        let long = "x + ".repeat(60);
        let other: String = (0..40).map(|i| format!("x * {i} + ")).collect();
        for sql in [
            "SELECT zz FROM t".to_owned(),
            "SELECT x,\n  'é', 'ü',\n  zz FROM t".to_owned(),
            format!("SELECT {other} zz, {other} x FROM t"),
            "SELECT sum(x) OVER (PARTITION BY zz) FROM t".to_owned(),
        ] {
            let message = duckdb.prepare(&sql).expect_err("no such column").to_string();
            assert_eq!(of_caret(&sql, &message), sql.find("zz"), "{message}");
        }
        for sql in
            ["SELECT '日本', zz FROM t".to_owned(), format!("SELECT {long} zz, {long} x FROM t")]
        {
            let message = duckdb.prepare(&sql).expect_err("no such column").to_string();
            let found = of_caret(&sql, &message);
            assert!(found.is_none() || found == sql.find("zz"), "{found:?}: {message}");
        }
        assert_eq!(of_caret("SELECT 1", "Out of Memory Error: no"), None);
        assert_eq!(of_caret("", "x\nLINE 7: select\n   ^"), None);
    }
}
