//! Histories with one thing wrong in each.
