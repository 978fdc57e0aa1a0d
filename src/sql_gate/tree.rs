//! Strict reading of the serialized parse: an object with a field that the reader does not name, or
//! without one that it does, is rejected. Lists of names are written as words in one text.

use serde_json::{Map, Value};

use super::Rejection;

/// An object of the tree and what it is called in messages.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    map: &'a Map<String, Value>,
    what: &'static str,
}

pub(super) fn object<'a>(value: &'a Value, what: &'static str) -> Result<Node<'a>, Rejection> {
    let map = value.as_object().ok_or_else(|| Rejection::unknown(what))?;
    Ok(Node { map, what })
}

pub(super) fn fields<'a>(
    value: &'a Value,
    what: &'static str,
    known: &str,
) -> Result<Node<'a>, Rejection> {
    let node = object(value, what)?;
    node.only(known)?;
    Ok(node)
}

pub(super) fn list<'a>(value: &'a Value, what: &'static str) -> Result<&'a [Value], Rejection> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| Rejection::unknown(what))
}

/// One of the words of `known`.
pub(super) fn one_of<'a>(value: &'a str, known: &str) -> Result<&'a str, Rejection> {
    if has(known, value) { Ok(value) } else { Err(Rejection::unknown(value)) }
}

fn has(words: &str, word: &str) -> bool {
    words.split_ascii_whitespace().any(|known| known == word)
}

impl<'a> Node<'a> {
    pub(super) fn only(self, known: &str) -> Result<(), Rejection> {
        self.only_with(known, "")
    }

    pub(super) fn only_with(self, known: &str, more: &str) -> Result<(), Rejection> {
        let stranger = self.map.keys().find(|field| !has(known, field) && !has(more, field));
        match stranger {
            Some(field) => Err(Rejection::unknown(&format!("{} with {field}", self.what))),
            None => Ok(()),
        }
    }

    pub(super) fn required(self, field: &str) -> Result<&'a Value, Rejection> {
        self.map
            .get(field)
            .ok_or_else(|| Rejection::unknown(&format!("{} without {field}", self.what)))
    }

    pub(super) fn text(self, field: &str) -> Result<&'a str, Rejection> {
        self.required(field)?
            .as_str()
            .ok_or_else(|| Rejection::unknown(&format!("{} with another {field}", self.what)))
    }

    pub(super) fn array(self, field: &str) -> Result<&'a [Value], Rejection> {
        list(self.required(field)?, self.what)
    }

    /// The serializer writes the largest number where it knows no position.
    pub(super) fn position(self) -> Option<usize> {
        let position = self.map.get("query_location")?.as_u64()?;
        usize::try_from(position).ok().filter(|_| position != u64::MAX)
    }
}
