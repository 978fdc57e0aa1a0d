//! `information_schema`: what a statement may ask of the catalog.
//!
//! DuckDB fills its own from all databases that it has, those of other snapshots among them, and has no
//! other of that name. So a statement that names it is given the name of martd's own schema in its place,
//! of the same length, so that positions stay what they were; and the text that comes of it is validated
//! as any other, for it is that which is prepared.

use super::lexer::{TokenKind, edited, tokens};
use super::{Rejection, TableName};

const STANDARD: &str = "information_schema";
/// The schema of a snapshot's catalog that has these tables.
pub const SCHEMA: &str = "martd_introspected";
const _: () = assert!(STANDARD.len() == SCHEMA.len());
/// What is in it.
pub const TABLES: [&str; 2] = ["tables", "columns"];

/// Whether a table is one of the standard's that is served.
pub(super) fn is_standard(table: &TableName) -> bool {
    is_in(table, STANDARD)
}

/// Whether a table is one of martd's own.
pub(super) fn is_own(table: &TableName) -> bool {
    is_in(table, SCHEMA)
}

fn is_in(table: &TableName, schema: &str) -> bool {
    table.schema.as_ref().is_some_and(|named| named.eq_ignore_ascii_case(schema))
        && TABLES.iter().any(|known| table.name.eq_ignore_ascii_case(known))
}

/// The statement with martd's schema in the place of the standard's.
pub(super) fn redirect(sql: &str) -> Result<String, Rejection> {
    let tokens = tokens(sql)?;
    let edits = tokens.iter().zip(tokens.iter().skip(1)).filter_map(|(token, next)| {
        let bare = match token.kind {
            TokenKind::Word => token.text,
            TokenKind::Quoted => token.text.strip_prefix('"')?.strip_suffix('"')?,
            TokenKind::Symbol(_) => return None,
        };
        let start = token.at + (token.text.len() - bare.len()) / 2;
        let is_it = next.is_symbol(b'.') && bare.eq_ignore_ascii_case(STANDARD);
        is_it.then(|| (start..start + bare.len(), SCHEMA.to_owned()))
    });
    let redirected = edited(sql, edits);
    match redirected == sql {
        false => Ok(redirected),
        true => Err(Rejection::unknown("information_schema in another way than as a name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_replaced_where_it_is_a_name() {
        let redirected = redirect(
            "select 'information_schema.tables', \"INFORMATION_schema\".tables.table_name -- information_schema.x
             from Information_Schema.tables, x as information_schema",
        );
        assert_eq!(
            redirected.unwrap(),
            "select 'information_schema.tables', \"martd_introspected\".tables.table_name -- information_schema.x
             from martd_introspected.tables, x as information_schema"
        );
    }
}
