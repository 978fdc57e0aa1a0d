//! Integration tests: a real martd, real files, real HTTP.
//!
//! Each file is a feature. [`harness`] starts martd and asks it; [`writers`] makes Parquet files and
//! dbt-like builds; [`namespace`] lets a test mount and set limits of the kernel without being root.

#![allow(unreachable_pub, reason = "the harness is this binary's public face, nothing else's")]

mod harness;
mod namespace;
mod writers;

mod consistency;
mod damage;
mod dbt;
mod decoding;
mod faults;
mod files;
mod holds;
mod in_place;
mod lifecycle;
mod query;
mod readiness;
mod restart;
mod watching;
