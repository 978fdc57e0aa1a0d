//! What parameters and columns a statement has, before it is run.

use super::protocol::{Description, QueryError, StatementFailure, UNTYPED};
use super::scope::Scope;
use super::session::{Sink, check_types, connection, explain, explain_of, explain_rejection};
use super::snapshot::EngineSnapshot;
use crate::duck::{DuckError, ResultColumn, TypeName};
use crate::sql_gate::{self, Asks, Dialect, Validator};

/// Where the statement does not determine them, a parameter is of the type that is said here, or a text.
///
/// # Errors
/// As of [`answer_with_room`](super::session::answer_with_room).
pub(super) fn describe(
    validator: &Validator,
    snapshot: &EngineSnapshot,
    sql: &str,
    types: &[Option<TypeName>],
    scope: &Scope,
    sink: &mut impl Sink,
) -> Result<Description, StatementFailure> {
    let statement = validator.validate_as(Dialect::Postgres, sql).map_err(explain_rejection)?;
    let asks = statement.asks;
    let explain = |error: DuckError| explain_of(&statement, explain(sql, &error));
    let mut pooled = connection(snapshot, asks, scope).map_err(explain)?;
    sink.begin(pooled.connection.interrupt_handle())?;
    let mut describe = |sql: &str| {
        let statement = validator.validate_as(Dialect::Postgres, sql).map_err(explain_rejection)?;
        snapshot.check(&statement)?;
        let text = statement.redirected.as_deref().unwrap_or(sql);
        let prepared = pooled.prepare(text).map_err(explain)?.statement;
        let mut parameters = Vec::new();
        for (name, ty) in prepared.parameter_names().iter().zip(prepared.parameter_types()) {
            let number: usize = name.parse().map_err(|_| {
                QueryError::Parameter(format!("parameter ${name} is named; number it: $1"))
            })?;
            if Some(number) == statement.moment {
                continue;
            }
            parameters.resize(parameters.len().max(number), None);
            parameters[number - 1] = ty.filter(|ty| ty.unsupported().is_none());
        }
        let (columns, asks) = (prepared.columns(), statement.asks);
        Ok::<_, StatementFailure>(Description { parameters, columns, asks })
    };
    let mut described = describe(sql)?;
    let is_open =
        described.parameters.iter().any(Option::is_none) || has_unknown(&described.columns);
    if types.iter().any(Option::is_some) || is_open {
        let said = |index: usize| types.get(index).and_then(Option::as_ref).map(TypeName::as_str);
        let found = described.parameters.iter().enumerate();
        let cast = found.clone().map(|(index, ty)| match (said(index), ty) {
            (Some(ty), _) => Some(format!("CAST(${} AS {ty})", index + 1)),
            (None, Some(_)) => None,
            (None, None) => Some(format!("CAST(${} AS VARCHAR)", index + 1)),
        });
        // Some functions want a constant, and tell the types of their columns with one alone.
        let constant = found.clone().map(|(index, ty)| {
            let found = ty.as_ref().map(ToString::to_string);
            let known = said(index).or(found.as_deref());
            Some(known.map_or("''::VARCHAR".to_owned(), |ty| format!("CAST(NULL AS {ty})")))
        });
        let mut untyped =
            found.clone().filter(|(index, ty)| ty.is_none() && said(*index).is_none());
        let (cast, constant): (Vec<_>, Vec<_>) = (cast.collect(), constant.collect());
        let mut columns = |parameters: &[Option<String>]| match describe(
            &sql_gate::replace_parameters(sql, parameters),
        ) {
            Ok(Description { columns, .. }) if has_unknown(&columns) => Ok(Err(columns)),
            Ok(Description { columns, .. }) => Ok(Ok(columns)),
            Err(failure) => Err(failure),
        };
        described.columns = match columns(&cast) {
            Ok(Ok(columns)) => columns,
            Err(failure) if !matches!(failure.error, QueryError::Sql { .. }) => {
                return Err(failure);
            }
            unknown => match (columns(&constant), untyped.next()) {
                (Ok(Ok(columns)), _) => columns,
                (_, Some((index, _))) => return Err(no_type(index + 1)),
                (_, None) => unknown?.unwrap_or_else(|columns| columns),
            },
        };
    }
    check_types(&described.columns)?;
    sink.end();
    if asks == Asks::Marts {
        snapshot.give_back(pooled);
    }
    Ok(described)
}

fn no_type(number: usize) -> StatementFailure {
    let how = format!("write ${number}::VARCHAR, or what it is");
    QueryError::Parameter(format!("{UNTYPED} ${number}: {how}")).into()
}

fn has_unknown(columns: &[ResultColumn]) -> bool {
    columns.iter().any(|column| column.ty.unsupported().is_some())
}
