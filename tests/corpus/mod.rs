//! Statements that must pass and statements that must not, and how to read them.

#![allow(unreachable_pub, reason = "shared by the validator's own tests and the daemon's")]

pub const LEGITIMATE: &str = include_str!("legitimate.sql");
pub const HOSTILE: &str = include_str!("hostile.sql");

/// The lines that are not comments.
pub fn lines(corpus: &str) -> impl Iterator<Item = &str> {
    corpus.lines().filter(|line| !line.starts_with("-- "))
}

/// Spells out `«n:x»`, `\n`, `\t`, `\r`, `\0` and `\u{..}`.
pub fn expand(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('«') {
        let (repeat, after) = after.split_once('»').expect("the corpus is well-formed");
        let (count, part) = repeat.split_once(':').expect("the corpus is well-formed");
        text.push_str(before);
        text.push_str(&part.repeat(count.parse().expect("the corpus is well-formed")));
        rest = after;
    }
    text.push_str(rest);
    while let Some((before, after)) = text.split_once("\\u{") {
        let (code, after) = after.split_once('}').expect("the corpus is well-formed");
        let char =
            char::from_u32(u32::from_str_radix(code, 16).expect("the corpus is well-formed"))
                .expect("the corpus is well-formed");
        text = format!("{before}{char}{after}");
    }
    for (written, meant) in [("\\n", "\n"), ("\\t ", "\t"), ("\\r", "\r")] {
        text = text.replace(written, meant);
    }
    text
}
