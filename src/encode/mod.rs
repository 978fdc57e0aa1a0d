//! Answers as bytes. One file per format; [`text`] holds DuckDB's own spelling of values that JSON
//! has no type for.

pub mod json;
mod text;

use crate::engine::Column;

/// The columns' names, made unique: a second `a` becomes `a_1`, and never collides with a column
/// that is called `a_1` already.
fn unique_names(columns: &[Column]) -> Vec<String> {
    let mut taken: std::collections::HashSet<String> =
        columns.iter().map(|column| column.name.clone()).collect();
    let mut seen = std::collections::HashSet::new();
    columns
        .iter()
        .map(|column| {
            if seen.insert(column.name.as_str()) {
                return column.name.clone();
            }
            let name = (1..)
                .map(|count| format!("{}_{count}", column.name))
                .find(|name| !taken.contains(name))
                .expect("there are more numbers than columns");
            taken.insert(name.clone());
            name
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Type;

    #[test]
    fn repeated_names_are_numbered_around_existing_ones() {
        let columns: Vec<Column> = ["a", "a", "a_1", "b", "a"]
            .map(|name| Column { name: name.to_owned(), ty: Type::Integer })
            .into();
        assert_eq!(unique_names(&columns), ["a", "a_2", "a_1", "b", "a_3"]);
    }
}
