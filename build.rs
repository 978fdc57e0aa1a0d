//! Finds DuckDB's shared library for the linker and writes where it is into the binary, so that
//! neither `cargo test` nor the built `martd` needs an environment variable.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    println!("cargo::rerun-if-env-changed=DUCKDB_DOWNLOAD_LIB");
    if env::var_os("DUCKDB_DOWNLOAD_LIB").is_some() {
        return; // libduckdb-sys fetches a library and links it by itself
    }
    let dir = env::var("DUCKDB_LIB_DIR").unwrap_or_default();
    let library = Path::new(&dir).join("libduckdb.so");
    println!("cargo::rerun-if-changed={}", library.display());
    if !library.exists() {
        println!("cargo::error=DuckDB's shared library is not in {dir}: run `make duckdb`");
        return;
    }
    // An installed martd looks beside itself and in ../lib/martd; a built one where it was linked.
    for place in ["$ORIGIN", "$ORIGIN/../lib/martd", &dir] {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{place}");
    }
}
