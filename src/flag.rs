//! How messages name a setting: by its flag and its variable, as users write either.

/// `--listen (MARTD_LISTEN)` for `MARTD_LISTEN`.
pub(crate) fn of(variable: &str) -> String {
    let name = variable.strip_prefix("MARTD_").unwrap_or(variable);
    format!("--{} ({variable})", name.to_ascii_lowercase().replace('_', "-"))
}
