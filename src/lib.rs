//! martd serves a directory of Parquet marts as one consistent database.
//!
//! The modules in the order in which data flows through them:
//!
//! - [`watch`] notices that the directory ([`mart_dir`]) may have changed, and [`scan`] looks;
//! - [`pin`] makes a file's bytes immutable and names them by their [`digest`], [`mart_pin`] holds the files of a mart together, and
//!   [`marts`] builds a table from them, which is their verification, too;
//! - [`legacy`] is the DuckDB file that is served until the first mart lands;
//! - [`ledger`] is what writers say of their builds (in files that `record_files` reads), and [`publish`] decides what may be served;
//! - [`state`] keeps it over a restart;
//! - [`refresh`] is the one writer that does all this, and [`catalog`] what it publishes;
//! - [`events`] tells those who listen what has changed;
//! - [`sql_gate`] says which statements may run;
//! - [`engine`] answers SQL over one snapshot in a process that may die, with [`duck`] and [`encode`];
//! - [`http`] serves the answers on the sockets of [`listen`], in a process that gave up its rights in
//!   [`sandbox`], and tells its [`service`] manager how it is;
//! - [`mirror`] fills the directory from an object store, in a process of its own;
//! - [`pg`] gives the same answers over the PostgreSQL protocol;
//! - [`metrics`] is what all of them count, and [`commands`] what can be typed.
//!
//! No module but `watch` names notify, none but `duck` names DuckDB's C API, none but `http` names hyper,
//! none but `pg` names pgwire, none but `mirror` names object_store.

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
