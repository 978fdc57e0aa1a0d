//! The walk over DuckDB's parse.
//!
//! The tree is read strictly: a node of a kind that is not named here, or with a field that is not,
//! is rejected, so a new version of DuckDB cannot slip anything past. What the walk carries: the
//! CTEs in scope (so that what is left over is what DuckDB will look up in its catalog), how deep
//! it is, and how large each part grows when the binder copies it.

use std::collections::{BTreeSet, HashMap};
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde_json::Value;

use super::tree::{Node, fields, object, one_of};
use super::{Asks, Dialect, Rejection, TableName, ValidatedStatement};

/// Relations that DuckDB joins as one, through subqueries and CTEs: 48 that are joined on one
/// column plan in 0.5 s, 64 in 2 s, and the optimizer cannot be interrupted.
const MAX_RELATIONS: u64 = 48;
/// Equalities that the optimizer may have to close over: 66 of one value plan in 0.6 s, 120 in 4 s.
const MAX_EQUALITIES: u64 = 64;
/// `EXCEPT` and `INTERSECT` are planned in the cube of their number: 2 s at 400.
const MAX_SET_OPERATIONS: usize = 200;
/// Nodes that the binder adds to those written, by copying: CTEs named twice, aliases used again,
/// macros that name an argument twice, `BETWEEN`. Unbounded, 300 bytes of text make 2^16 of them.
const MAX_COPIED_NODES: u64 = 30_000;
/// `COLUMNS(*)` copies the expression around it once per column; how many there are is not known
/// here.
const COLUMNS_COPIES: u64 = 50;

/// Reads the whole serialized statement.
pub(super) fn validate(tree: &Value, asks: Asks) -> Result<ValidatedStatement, Rejection> {
    let mut walk = Walk { asks_catalog: asks == Asks::Catalog, ..Walk::default() };
    let statement = fields(tree, "statement", "node named_param_map")?;
    let complexity = walk.query(statement.required("node")?)?;
    walk.within_budget(complexity)?;
    let mut parameters = BTreeSet::new();
    for entry in statement.array("named_param_map")? {
        let entry = fields(entry, "parameter", "key value")?;
        parameters.insert(entry.text("key")?.to_owned());
    }
    Ok(ValidatedStatement {
        tables: walk.tables,
        cacheable: !walk.inconsistent,
        parameters: parameters.into_iter().collect(),
        keep_prepared: !walk.runs_once,
        redirected: None,
        moment: None,
        asks,
        dialect: Dialect::DuckDb,
    })
}

#[derive(Default)]
pub(super) struct Walk {
    /// The catalog's tables and macros are meant, and no marts.
    pub(super) asks_catalog: bool,
    pub(super) ctes: Vec<Cte>,
    /// Aliases of the select lists around, innermost last.
    pub(super) aliases: Vec<HashMap<String, u64>>,
    pub(super) tables: Vec<TableName>,
    pub(super) inconsistent: bool,
    /// A part whose plan does not give the same answer, or any, when it is executed again.
    pub(super) runs_once: bool,
    /// Nodes as written, to tell what copying adds.
    pub(super) written: u64,
    pub(super) expressions: usize,
    pub(super) calls: usize,
    /// Subqueries and lambdas around.
    pub(super) nesting: usize,
    pub(super) set_operations: usize,
}

pub(super) struct Cte {
    /// Lower case, as DuckDB compares names.
    pub(super) name: String,
    /// `recurring.name` may be read, the whole table built so far.
    pub(super) keyed: bool,
    pub(super) complexity: Complexity,
}

/// What a part of the statement grows to before it runs, against the complexity budget.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Complexity {
    pub(super) nodes: u64,
    pub(super) relations: u64,
    pub(super) equalities: u64,
}

impl Complexity {
    pub(super) const ONE: Self = Self { nodes: 1, relations: 0, equalities: 0 };
    pub(super) const TABLE: Self = Self { nodes: 1, relations: 1, equalities: 0 };

    pub(super) fn times(self, copies: u64) -> Self {
        Self {
            nodes: self.nodes.saturating_mul(copies),
            relations: self.relations.saturating_mul(copies),
            equalities: self.equalities.saturating_mul(copies),
        }
    }

    /// A part whose joins are planned apart from those around it.
    pub(super) fn planned_apart(self) -> Self {
        Self { nodes: self.nodes, relations: 1, equalities: 0 }
    }
}

impl Add for Complexity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            relations: self.relations.saturating_add(other.relations),
            equalities: self.equalities.saturating_add(other.equalities),
        }
    }
}

impl AddAssign for Complexity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Complexity {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Self::add)
    }
}

impl Walk {
    pub(super) fn within_budget(&self, complexity: Complexity) -> Result<(), Rejection> {
        if complexity.nodes.saturating_sub(self.written) > MAX_COPIED_NODES {
            reject!(
                None,
                "the statement grows too large when its CTEs, column aliases, macros (nullif, \
                 round_even, ...) and BETWEENs are expanded; nest them less"
            );
        }
        if complexity.relations > MAX_RELATIONS {
            reject!(None, "more than {MAX_RELATIONS} tables and subqueries are joined at once");
        }
        if complexity.equalities > MAX_EQUALITIES {
            reject!(None, "tables are joined by more than {MAX_EQUALITIES} equalities at once");
        }
        Ok(())
    }

    pub(super) fn count(&mut self) {
        self.written += 1;
    }

    /// A node of a query tree, with the CTEs it defines in scope for all of it.
    pub(super) fn query(&mut self, value: &Value) -> Result<Complexity, Rejection> {
        self.count();
        let node = object(value, "query")?;
        let outer = self.ctes.len();
        let defined = self.with(node.required("cte_map")?)?;
        let body = match node.text("type")? {
            "SELECT_NODE" => self.select(node)?,
            "SET_OPERATION_NODE" => self.set_operation(node)?,
            "RECURSIVE_CTE_NODE" => {
                return Err(Rejection::unknown("a recursive query outside of a WITH clause"));
            }
            other => return Err(Rejection::unknown(other)),
        };
        self.within_budget(body)?;
        self.ctes.truncate(outer);
        Ok(Complexity { nodes: body.nodes.saturating_add(defined.nodes), ..body })
    }

    /// The definitions of a WITH clause: each sees those before it and, if it is recursive, itself
    /// in its second half. They stay in scope for the caller to remove.
    pub(super) fn with(&mut self, value: &Value) -> Result<Complexity, Rejection> {
        let mut complexity = Complexity::default();
        for entry in fields(value, "WITH clause", "map")?.array("map")? {
            let entry = fields(entry, "WITH entry", "key value")?;
            let info =
                fields(entry.required("value")?, "CTE", "aliases query materialized key_targets")?;
            let name = entry.text("key")?.to_ascii_lowercase();
            let keyed = self.parts(info, "key_targets")?;
            let query = fields(info.required("query")?, "CTE", "node named_param_map")?;
            let body = query.required("node")?;
            let body = if object(body, "query")?.text("type")? == "RECURSIVE_CTE_NODE" {
                self.recursive(&name, body)?
            } else {
                self.query(body)?
            };
            complexity += keyed + body;
            self.ctes.push(Cte { name, keyed: false, complexity: body });
        }
        Ok(complexity)
    }

    pub(super) fn recursive(&mut self, name: &str, value: &Value) -> Result<Complexity, Rejection> {
        self.count();
        let node = fields(
            value,
            "RECURSIVE_CTE_NODE",
            "type modifiers cte_map cte_name union_all left right aliases key_targets",
        )?;
        if !node.text("cte_name")?.eq_ignore_ascii_case(name) {
            return Err(Rejection::unknown("a recursive query of another name"));
        }
        let outer = self.ctes.len();
        let mut complexity = self.with(node.required("cte_map")?)?.planned_apart();
        complexity += self.parts(node, "key_targets")?;
        complexity += self.query(node.required("left")?)?.planned_apart();
        self.ctes.push(Cte {
            name: name.to_owned(),
            keyed: !node.array("key_targets")?.is_empty(),
            complexity: Complexity::TABLE,
        });
        complexity += self.query(node.required("right")?)?.planned_apart();
        complexity += self.modifiers(node)?;
        self.ctes.truncate(outer);
        Ok(complexity.planned_apart())
    }

    pub(super) fn set_operation(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only("type modifiers cte_map setop_type left right setop_all")?;
        let plain = one_of(node.text("setop_type")?, "UNION UNION_BY_NAME EXCEPT INTERSECT")?;
        self.set_operations += usize::from(!plain.starts_with("UNION"));
        if self.set_operations > MAX_SET_OPERATIONS {
            reject!(None, "more than {MAX_SET_OPERATIONS} EXCEPTs and INTERSECTs");
        }
        let both = self.query(node.required("left")?)? + self.query(node.required("right")?)?;
        Ok((both + self.modifiers(node)?).planned_apart())
    }

    pub(super) fn select(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only(
            "type modifiers cte_map select_list from_table where_clause group_expressions \
                group_sets aggregate_handling having sample qualify",
        )?;
        one_of(
            node.text("aggregate_handling")?,
            "STANDARD_HANDLING NO_AGGREGATES_ALLOWED FORCE_AGGREGATES",
        )?;
        let mut complexity = self.table_ref(node.required("from_table")?)?;
        self.aliases.push(HashMap::new());
        for item in node.array("select_list")? {
            let (item_complexity, columns) = self.counting_columns(item)?;
            let item_complexity =
                if columns { item_complexity.times(COLUMNS_COPIES) } else { item_complexity };
            let alias = object(item, "expression")?.text("alias")?;
            if !alias.is_empty()
                && let Some(aliases) = self.aliases.last_mut()
            {
                aliases.insert(alias.to_ascii_lowercase(), item_complexity.nodes);
            }
            complexity += item_complexity;
        }
        complexity += self.condition(node, "where_clause")?;
        complexity += self.parts(node, "group_expressions")?;
        for clause in ["having", "qualify"] {
            complexity += self.optional(node, clause)?;
        }
        self.sample(node.required("sample")?)?;
        complexity += self.modifiers(node)?;
        self.aliases.pop();
        self.within_budget(complexity)?;
        let has = |field| Ok(!node.array(field)?.is_empty());
        let apart = has("group_expressions")? || has("modifiers")?;
        Ok(if apart { complexity.planned_apart() } else { complexity })
    }

    pub(super) fn modifiers(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        let mut complexity = Complexity::default();
        for modifier in node.array("modifiers")? {
            let modifier = object(modifier, "modifier")?;
            complexity += match modifier.text("type")? {
                "ORDER_MODIFIER" => self.order(modifier)?,
                "LIMIT_MODIFIER" | "LIMIT_PERCENT_MODIFIER" => {
                    modifier.only("type limit offset")?;
                    self.optional(modifier, "limit")? + self.optional(modifier, "offset")?
                }
                "DISTINCT_MODIFIER" => {
                    modifier.only("type distinct_on_targets")?;
                    self.parts(modifier, "distinct_on_targets")?
                }
                other => return Err(Rejection::unknown(other)),
            };
        }
        Ok(complexity)
    }

    pub(super) fn order(&mut self, modifier: Node<'_>) -> Result<Complexity, Rejection> {
        modifier.only("type orders")?;
        self.orders(modifier.array("orders")?)
    }

    pub(super) fn orders(&mut self, orders: &[Value]) -> Result<Complexity, Rejection> {
        let mut complexity = Complexity::default();
        for order in orders {
            let order = fields(order, "ORDER BY", "type null_order expression")?;
            one_of(order.text("type")?, "ORDER_DEFAULT ASCENDING DESCENDING")?;
            one_of(
                &order.text("null_order")?.replace(' ', "_"),
                "ORDER_DEFAULT NULLS_FIRST NULLS_LAST",
            )?;
            complexity += self.part(order, "expression")?;
        }
        Ok(complexity)
    }

    /// A sample is drawn anew each time, also a repeatable one when several threads draw it.
    pub(super) fn sample(&mut self, value: &Value) -> Result<(), Rejection> {
        if !value.is_null() {
            fields(value, "sample", "sample_size is_percentage method seed")?;
            self.inconsistent = true;
        }
        Ok(())
    }
}
