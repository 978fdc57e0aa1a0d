//! Integration tests: a real martd, real files, real HTTP.
//!
//! Each file is a feature. [`harness`] starts martd and asks it; [`writers`] makes Parquet files and
//! dbt-like builds; [`proc`] asks the kernel what martd takes; [`namespace`] lets a test mount and set
//! limits of the kernel without being root.

#![allow(unreachable_pub, reason = "the harness is this binary's public face, nothing else's")]

#[path = "../corpus/mod.rs"]
mod corpus;
mod browser;
mod harness;
mod namespace;
mod writers;
mod proc;

mod at_once;
mod building;
mod cache;
mod cancel;
mod clients;
mod commands;
mod consistency;
mod damage;
mod datasets;
mod dbt;
mod dbt_check;
mod doors;
mod engine;
mod engine_load;
mod events;
mod faults;
mod files;
mod first_steps;
mod formats;
mod freshness;
mod history;
mod holds;
mod hostile;
mod in_place;
mod introspection;
mod kill;
mod legacy;
mod legacy_refused;
mod lifecycle;
mod log;
mod limits;
mod listeners;
mod mart_file;
mod mcp;
mod metrics;
mod openapi;
mod ops;
mod packaging;
mod page;
mod parts;
mod pg_catalog;
mod pg_dialect;
mod pg_hostile;
mod pg_raw;
mod pg_rough;
mod poison;
mod postgres;
mod publish;
mod query;
mod readiness;
mod records;
mod replicas;
mod restart;
mod retention;
mod rollback;
mod scope;
mod service;
mod uploads;
mod watching;
mod wire;
