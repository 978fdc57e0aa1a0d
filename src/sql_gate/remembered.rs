//! What was said of texts, within a number of bytes. The front and the engine remember so what the validator
//! said.

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// What is remembered, in bytes.
pub(super) const REMEMBERED_BYTES: u64 = 4 << 20;
/// What one takes beside its text and the names from it, so that many short texts are bounded, too.
const ENTRY_BYTES: u64 = 512;

/// What was said, by text.
#[derive(Debug)]
pub struct Remembered<T>(Cache<Box<str>, T, ByText>);

#[derive(Debug, Clone)]
struct ByText;

impl<T> Weighter<Box<str>, T> for ByText {
    fn weight(&self, text: &Box<str>, _: &T) -> u64 {
        2 * text.len() as u64 + ENTRY_BYTES
    }
}

impl<T: Clone> Default for Remembered<T> {
    fn default() -> Self {
        let entries = (REMEMBERED_BYTES / ENTRY_BYTES) as usize;
        Self(Cache::with_weighter(entries, REMEMBERED_BYTES, ByText))
    }
}

impl<T: Clone> Remembered<T> {
    /// What was said of a text, unless it was forgotten.
    pub fn get(&self, text: &str) -> Option<T> {
        self.0.get(text)
    }

    /// Remembers what is said of a text.
    pub fn put(&self, text: &str, said: T) {
        self.0.insert(text.into(), said);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.0.weight()
    }
}
