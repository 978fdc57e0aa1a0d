//! martd serves a directory of Parquet marts as one consistent database.
//!
//! The modules stand here in the order in which data flows through them. `docs/architecture.md` says what each is
//! for, follows a file and a query through them, and has what always holds.

pub mod settings;
pub mod config;
pub mod watch;
pub mod scan;
pub mod mart_dir;
pub mod digest;
pub mod pin;
pub mod mart_pin;
pub mod marts;
pub mod legacy;
pub mod ledger;
mod record_files;
pub mod publish;
pub mod state;
pub mod refresh;
pub mod catalog;
pub mod events;
pub mod sql_gate;
pub mod duck;
pub mod ipc;
pub mod spawner;
pub mod engine;
pub mod encode;
pub mod http;
pub mod pg;
pub mod mirror;
pub mod metrics;
pub mod listen;
pub mod sandbox;
pub mod limits;
pub mod signal;
pub mod service;

mod flag;
mod printable;
pub mod hooks;
pub mod commands;
