//! Marts: from files to what is served.

pub mod build;
