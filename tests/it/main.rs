//! Integration tests: a real martd, real files, real HTTP.
//!
//! Each file is a feature. [`harness`] starts martd and asks it; [`writers`] makes Parquet files and
//! dbt-like builds.

#![allow(unreachable_pub, reason = "the harness is this binary's public face, nothing else's")]

#[path = "../corpus/mod.rs"]
mod corpus;
mod harness;
mod writers;

mod cache;
mod cancel;
mod consistency;
mod dbt;
mod files;
mod formats;
mod holds;
mod hostile;
mod lifecycle;
mod limits;
mod query;
mod readiness;
mod restart;
mod scope;
