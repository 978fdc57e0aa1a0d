//! `GET /v1/datasets` and `/v1/datasets/{id}/schema`: the marts that an analytics backend offers its
//! users, as the dbt project describes them in its ledger.

use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::problem::{self, Problem};
use crate::catalog::{Snapshot, State};
use crate::ledger::Model;

/// All datasets.
#[derive(Debug, Serialize)]
pub(super) struct DatasetsDocument<'s> {
    datasets: Vec<Dataset<'s>>,
    total: usize,
    /// What the project says in a way that is not understood, and is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Misunderstood<'s>>,
}

/// A part of a model's `meta` that is not what it should be.
#[derive(Debug, Serialize)]
struct Misunderstood<'s> {
    dataset_name: &'s str,
    problem: String,
}

/// A model with `meta.dataset: true`.
#[derive(Debug, Serialize)]
struct Dataset<'s> {
    id: Uuid,
    dataset_name: &'s str,
    friendly_name: &'s str,
    description: &'s str,
    group: Option<&'s str>,
    time_grain: Option<&'s str>,
    filters: Filters<'s>,
}

/// What a dataset can be filtered by.
#[derive(Debug, Serialize)]
struct Filters<'s> {
    date_column: Option<&'s str>,
    account_id_column: Option<&'s str>,
    tag_id_column: Option<&'s str>,
    enum_filters: Vec<Filter<'s>>,
    numeric_filters: Vec<Filter<'s>>,
}

#[derive(Debug, Serialize)]
struct Filter<'s> {
    name: &'s str,
    label: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<&'s [Json]>,
}

/// A dataset with its columns.
#[derive(Debug, Serialize)]
pub(super) struct Schema<'s> {
    #[serde(flatten)]
    dataset: Dataset<'s>,
    columns: Vec<Column<'s>>,
}

#[derive(Debug, Serialize)]
struct Column<'s> {
    name: &'s str,
    description: &'s str,
    data_type: &'s str,
}

impl<'s> DatasetsDocument<'s> {
    /// Without a ledger nothing is known of any dataset.
    pub(super) fn of(state: &'s State) -> Self {
        let mut problems = Vec::new();
        let datasets: Vec<_> = models(state)
            .map(|model| {
                let mut meta = Meta::of(model);
                let dataset = Dataset::of(model, &mut meta);
                let dataset_name = model.name.as_str();
                let found = meta.problems.into_iter();
                problems.extend(found.map(|problem| Misunderstood { dataset_name, problem }));
                dataset
            })
            .collect();
        Self { total: datasets.len(), datasets, problems }
    }
}

/// The dataset that `id` means, an id or the model's name, with its columns.
pub(super) fn schema<'s>(state: &'s State, id: &str) -> Result<Schema<'s>, Problem> {
    let id = percent_decode_str(id).decode_utf8_lossy();
    let uuid = Uuid::try_parse(&id).ok();
    let model = models(state)
        .find(|model| model.name == id || uuid == Some(id_of(&model.name)))
        .ok_or_else(|| {
            let detail = format!("no dataset {id:?}; /v1/datasets lists them by id and by name");
            Problem::new(problem::NOT_FOUND, detail)
        })?;
    let dataset = Dataset::of(model, &mut Meta::of(model));
    Ok(Schema { dataset, columns: columns(state.snapshot.as_deref(), model) })
}

fn models(state: &State) -> impl Iterator<Item = &Model> {
    let ledger = state.snapshot.as_ref().and_then(|snapshot| snapshot.ledger.as_deref());
    let models = ledger.map_or(&[][..], |ledger| &ledger.models);
    models.iter().filter(|model| model.meta.get("dataset") == Some(&Json::Bool(true)))
}

/// The same id in every installation, and no need to keep one.
fn id_of(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes())
}

impl<'s> Dataset<'s> {
    fn of(model: &'s Model, meta: &mut Meta<'s>) -> Self {
        Self {
            id: id_of(&model.name),
            dataset_name: &model.name,
            friendly_name: meta.text("friendly_name").unwrap_or(&model.name),
            description: model.description.as_deref().unwrap_or_default(),
            group: meta.text("group"),
            time_grain: meta.text("time_grain"),
            filters: Filters {
                date_column: meta.text("date_column"),
                account_id_column: meta.text("account_id_column"),
                tag_id_column: meta.text("tag_id_column"),
                enum_filters: meta.filters("enum_filters", |filter| {
                    let options = filter.get("options").and_then(Json::as_array);
                    Some(options.map_or(&[], Vec::as_slice))
                }),
                numeric_filters: meta.filters("numeric_filters", |_| None),
            },
        }
    }
}

/// What a model's `meta` says, in itself or under its key `filters`, which wins. People write it by hand:
/// what is not understood is noted, and the rest holds.
struct Meta<'s> {
    meta: &'s Map<String, Json>,
    nested: Option<&'s Map<String, Json>>,
    problems: Vec<String>,
}

impl<'s> Meta<'s> {
    fn of(model: &'s Model) -> Self {
        let nested = model.meta.get("filters").filter(|nested| !nested.is_null());
        let mut meta = Self { meta: &model.meta, nested: None, problems: Vec::new() };
        meta.nested = nested.and_then(|nested| meta.understood("filters", nested, Json::as_object));
        meta
    }

    /// A member that is there and not null.
    fn said(&self, key: &str) -> Option<&'s Json> {
        let nested = self.nested.and_then(|nested| nested.get(key));
        nested.or_else(|| self.meta.get(key)).filter(|json| !json.is_null())
    }

    /// What `read` makes of a value, or a note that it made nothing.
    fn understood<T>(
        &mut self,
        key: &str,
        json: &'s Json,
        read: impl FnOnce(&'s Json) -> Option<T>,
    ) -> Option<T> {
        let read = read(json);
        if read.is_none() {
            self.problems.push(format!("meta: {key} is not understood: {json}"));
        }
        read
    }

    fn text(&mut self, key: &str) -> Option<&'s str> {
        let json = self.said(key)?;
        self.understood(key, json, Json::as_str)
    }

    /// The filters of a kind that have a name.
    fn filters(
        &mut self,
        kind: &str,
        options: impl Fn(&'s Json) -> Option<&'s [Json]>,
    ) -> Vec<Filter<'s>> {
        let list = self.said(kind).and_then(|json| self.understood(kind, json, Json::as_array));
        let named = list.into_iter().flatten().filter_map(|filter| {
            let name = self.understood(kind, filter, |filter| filter.get("name")?.as_str())?;
            let label = filter.get("label").and_then(Json::as_str).unwrap_or(name);
            Some(Filter { name, label, options: options(filter) })
        });
        named.collect()
    }
}

/// The columns that the project describes, or else those of the file; a type that the project does
/// not give is the file's.
fn columns<'s>(snapshot: Option<&'s Snapshot>, model: &'s Model) -> Vec<Column<'s>> {
    let mart = snapshot.and_then(|snapshot| snapshot.marts.get(&model.name));
    let served = mart.map_or(&[][..], |mart| mart.columns());
    if model.columns.is_empty() {
        let column = |column: &'s crate::marts::build::ReportColumn| Column {
            name: &column.name,
            description: "",
            data_type: &column.ty,
        };
        return served.iter().map(column).collect();
    }
    let described = model.columns.iter().map(|column| {
        let file = served.iter().find(|served| served.name.eq_ignore_ascii_case(&column.name));
        Column {
            name: &column.name,
            description: column.description.as_deref().unwrap_or_default(),
            data_type: column
                .data_type
                .as_deref()
                .or(file.map(|served| served.ty.as_str()))
                .unwrap_or_default(),
        }
    });
    described.collect()
}
