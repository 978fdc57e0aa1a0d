//! Text of others that is shown to people. A model's description or a file's name may hold what moves a
//! cursor, changes a terminal, or makes one line look like another.

use std::borrow::Cow;

/// Whether a character does something instead of being shown.
pub(crate) fn is_control(c: char) -> bool {
    let directs = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || directs
}

/// The text with each such character, but tabs and the ends of lines, as Rust writes it: `\u{1b}`.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| is_control(c) && c != '\n' && c != '\t';
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_spelled_out() {
        assert!(matches!(lines("é 日本\n'\"\\"), Cow::Borrowed(_)));
        assert_eq!(
            lines("a\x1b[2J\0\r\n\u{202e}b\u{9b}"),
            "a\\u{1b}[2J\\u{0}\\r\n\\u{202e}b\\u{9b}"
        );
    }
}
