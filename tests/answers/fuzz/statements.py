"""Random statements, whose rows nothing but their text decides."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from fuzz.schema import ODD, VALUES, Column, Table, literal, make_values

PLACE = "\x01"


@dataclass(frozen=True)
class Parameter:
    value: Any
    type: str | None = None


@dataclass(frozen=True)
class Part:
    """SQL, with a place for each of its parameters."""

    sql: str
    parameters: tuple[Parameter, ...] = ()

    def __add__(self, other: Part | str) -> Part:
        other = Part(other) if isinstance(other, str) else other
        return Part(self.sql + other.sql, self.parameters + other.parameters)

    def __radd__(self, other: str) -> Part:
        return Part(other) + self


def join(separator: str, parts: list[Part]) -> Part:
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + separator + part
    return joined


@dataclass(frozen=True)
class Statement:
    """A SELECT by its clauses, so that it can be made smaller."""

    source: Part
    select: list[Part]
    distinct: bool = False
    where: list[Part] = field(default_factory=list)
    group_by: list[Part] = field(default_factory=list)
    having: list[Part] = field(default_factory=list)
    qualify: list[Part] = field(default_factory=list)
    order_by: list[Part] = field(default_factory=list)
    limit: Part | None = None
    # What the whole is put into, such as a CTE, with {} in its place.
    around: str = "{}"

    def render(self) -> Part:
        part = Part("SELECT DISTINCT " if self.distinct else "SELECT ") + join(", ", self.select)
        part = part + " FROM " + self.source
        clauses = [
            ("WHERE", " AND ", self.where),
            ("GROUP BY", ", ", self.group_by),
            ("HAVING", " AND ", self.having),
            ("QUALIFY", " AND ", self.qualify),
            ("ORDER BY", ", ", self.order_by),
        ]
        for name, separator, parts in clauses:
            if parts:
                part = part + f" {name} " + join(separator, parts)
        if self.limit:
            part = part + self.limit
        before, _, after = self.around.partition("{}")
        return before + part + after

    def smaller(self) -> Iterator[Statement]:
        """This without one of its parts."""
        if self.around != "{}":
            yield replace(self, around="{}")
        for name in ("where", "qualify", "having"):
            parts = getattr(self, name)
            for n in range(len(parts)):
                yield replace(self, **{name: parts[:n] + parts[n + 1 :]})
        if len(self.select) > 1 and not self.group_by:
            for n in range(len(self.select)):
                yield replace(self, select=self.select[:n] + self.select[n + 1 :])
        if self.limit:
            yield replace(self, limit=None)
        if self.order_by and not self.limit:
            yield replace(self, order_by=[])
        if self.limit and len(self.order_by) > 1:
            yield replace(self, order_by=self.order_by[-1:])


def numbered(part: Part) -> tuple[str, list[Parameter]]:
    """`$1` and so on in the places of parameters."""
    numbers = iter(range(1, len(part.parameters) + 1))
    return re.sub(PLACE, lambda _: f"${next(numbers)}", part.sql), list(part.parameters)


class Generator:
    """Statements over two tables."""

    def __init__(self, rng: random.Random, tables: list[Table]) -> None:
        self.rng = rng
        self.tables = tables

    def statement(self) -> Statement:
        shapes = {
            self.rows: 6, self.page: 5, self.totals: 5, self.groups: 4, self.distinct: 2, self.join: 4,
            self.window: 3, self.set_operation: 2, self.asof: 0.3, self.failing: 4,
        }  # fmt: skip
        [shape] = self.rng.choices(list(shapes), list(shapes.values()))
        statement = shape()
        if self.rng.random() < 0.1 and not statement.order_by:
            statement = replace(statement, around="WITH w AS ({}) FROM w")
        return statement

    # Shapes ---------------------------------------------------------------------------------------

    def rows(self) -> Statement:
        table = self.table()
        return Statement(self.source(table), self.outputs(table), where=self.conditions(table))

    def page(self) -> Statement:
        table = self.table()
        limit: Part | None = None
        if self.rng.random() < 0.8:
            limit = self.count(" LIMIT ", [0, 1, 5, 100, 3_000])
            if self.rng.random() < 0.5:
                limit = limit + self.count(" OFFSET ", [0, 1, 10, 2_000])
        return replace(
            self.rows(), source=self.source(table), select=self.outputs(table),
            where=self.conditions(table), order_by=self.total_order(table), limit=limit,
        )  # fmt: skip

    def totals(self) -> Statement:
        table = self.table()
        return Statement(self.source(table), self.aggregates(table), where=self.conditions(table))

    def groups(self) -> Statement:
        table = self.table()
        keys = [self.scalar(table).name for _ in range(self.rng.randint(1, 2))]
        having = [Part(self.rng.choice(["count(*) > 1", "min(id) < 500", "count(DISTINCT k) >= 2"]))]
        return Statement(
            self.source(table),
            [*map(Part, keys), *self.aggregates(table)],
            where=self.conditions(table),
            group_by=list(map(Part, keys)),
            having=having if self.rng.random() < 0.3 else [],
        )

    def distinct(self) -> Statement:
        table = self.table()
        select = [Part(self.scalar(table).name) for _ in range(self.rng.randint(1, 3))]
        return Statement(self.source(table), select, distinct=True, where=self.conditions(table))

    def join(self) -> Statement:
        left, right = self.rng.sample(self.tables, 2)
        kind = self.rng.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"])
        condition = Part("a.k = b.k")
        same = [(x, y) for x in left.columns for y in right.columns if x.type == y.type and not x.is_nested]
        if same and self.rng.random() < 0.6:
            x, y = self.rng.choice(same)
            operator = self.rng.choice(["=", "<=", "IS NOT DISTINCT FROM", "<>"])
            condition = condition + f" AND a.{x.name} {operator} b.{y.name}"
        one_sided = kind in ("SEMI JOIN", "ANTI JOIN")
        sides = [("a", left)] if one_sided else [("a", left), ("b", right)]
        select = [Part(f"{alias}.{self.column(t).name} AS {alias}{n}") for n in range(2) for alias, t in sides]
        select += [Part(f"{alias}.id AS {alias}_id") for alias, _ in sides]
        if self.rng.random() < 0.4:
            select = [Part("count(*)"), *(Part(f"sum({alias}.id)") for alias, _ in sides)]
        where = [self.condition(left, "a.")] if self.rng.random() < 0.6 else []
        source = Part(f"mart.{left.name} a {kind} mart.{right.name} b ON ") + condition
        return Statement(source, select, where=where)

    def asof(self) -> Statement:
        left, right = self.rng.sample(self.tables, 2)
        source = f"mart.{left.name} a ASOF LEFT JOIN mart.{right.name} b ON a.user_id = b.user_id AND a.id >= b.id"
        return Statement(Part(source), [Part("a.id"), Part("b.id AS b_id"), Part(f"b.{self.column(right).name}")])

    def window(self) -> Statement:
        table = self.table()
        keys = join(", ", self.total_order(table))
        over = f" OVER (PARTITION BY {self.scalar(table).name} ORDER BY " + keys
        frame = self.rng.choice(["", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", " ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING"])
        function = self.rng.choice(["row_number()", "rank()", f"lag({self.column(table).name})", "ntile(4)"])
        framed = self.rng.choice(["sum(id)", "count(*)", f"min({self.scalar(table).name})", f"last_value({self.column(table).name})"])
        select = [Part("id"), function + over + ") AS w1", framed + over + frame + ") AS w2"]
        qualify = ["row_number()" + over + ") <= 2"] if self.rng.random() < 0.4 else []
        return Statement(self.source(table), select, where=self.conditions(table), qualify=qualify)

    def set_operation(self) -> Statement:
        left, right = self.table(), self.table()
        operator = self.rng.choice(["UNION", "UNION ALL", "EXCEPT", "EXCEPT ALL", "INTERSECT", "INTERSECT ALL"])
        same = [(x, y) for x in left.columns for y in right.columns if x.type == y.type and not x.is_nested]
        x, y = self.rng.choice(same) if same else (left.columns[0], left.columns[0])
        right = right if same else left
        second = Statement(self.source(right), [Part(y.name)], where=self.conditions(right)).render()
        first = Statement(self.source(left), [Part(x.name)], where=self.conditions(left)).render()
        return Statement("(" + first + f" {operator} " + second + ") AS u", [Part("*")])

    def failing(self) -> Statement:
        """One condition, so that whether it fails does not depend on others; an answer as often as not."""
        table = self.table()
        column = self.scalar(table)
        text = self.odd(column)
        if self.rng.random() < 0.6:
            operator = self.rng.choice(["=", "<>", "<", "<=", ">", ">="])
            value = self.rng.choice([f"{text}::{column.type}", text, f"try_cast({text} AS {column.type})"])
            where = [Part(f"{column.name} {operator} {value}")]
            return Statement(self.source(table), [Part("id"), Part(column.name)], where=where)
        target = self.rng.choice(list(VALUES))
        cast = self.rng.choice([f"{column.name}::{target}", f"try_cast({column.name} AS {target})"])
        return Statement(self.source(table), [Part("id"), Part(f"{cast} AS x")])

    # Parts ----------------------------------------------------------------------------------------

    def table(self) -> Table:
        return self.rng.choice(self.tables)

    def source(self, table: Table) -> Part:
        return Part(f"mart.{table.name}")

    def column(self, table: Table) -> Column:
        return self.rng.choice(table.columns)

    def scalar(self, table: Table) -> Column:
        columns = [column for column in table.columns if not column.is_nested]
        return self.rng.choice(columns or [Column("k", "BIGINT", ("0", "1"))])

    def outputs(self, table: Table) -> list[Part]:
        outputs = [Part("id")]
        for n in range(self.rng.randint(1, 4)):
            column = self.column(table)
            name = column.name
            expressions = [name, name, name, f"{name} IS NULL", f"count(*) FILTER (WHERE {name} IS NULL) OVER ()"]
            if not column.is_nested:
                expressions += [f"try_cast({name} AS {self.rng.choice(list(VALUES))})", f"coalesce({name}, {name})"]
                expressions += [f"[{name}, NULL]", f"{{'a': {name}}}", f"CASE WHEN id % 2 = 0 THEN {name} END"]
            if column.is_integer:
                expressions += [f"{name}::HUGEINT * 3", f"{name}::DOUBLE / 4", f"{name}::VARCHAR"]
            outputs.append(Part(f"{self.rng.choice(expressions)} AS x{n}"))
        return [Part("*")] if self.rng.random() < 0.15 else outputs

    def aggregates(self, table: Table) -> list[Part]:
        aggregates = [Part("count(*) AS n")]
        for n in range(self.rng.randint(1, 4)):
            column = self.scalar(table)
            name = column.name
            functions = ["count({0})", "count(DISTINCT {0})", "min({0})", "max({0})", "arg_min({0}, id)", "list({0} ORDER BY id)[:4]"]
            if column.is_integer:
                functions += ["sum({0})", "avg({0})", "bit_xor({0})"]
            if column.type in ("DECIMAL(4,1)", "DECIMAL(9,4)", "DECIMAL(18,2)"):
                functions += ["sum({0})"]
            aggregates.append(Part(f"{self.rng.choice(functions).format(name)} AS x{n}"))
        return aggregates

    def total_order(self, table: Table) -> list[Part]:
        orders = [
            Part(f"{self.scalar(table).name}{direction}{nulls}")
            for _ in range(self.rng.randint(0, 2))
            for direction in [self.rng.choice(["", " ASC", " DESC"])]
            for nulls in [self.rng.choice(["", " NULLS FIRST", " NULLS LAST"])]
        ]
        return [*orders, Part("id" + self.rng.choice(["", " DESC"]))]

    def count(self, keyword: str, counts: list[int]) -> Part:
        count = self.rng.choice(counts)
        if self.rng.random() < 0.5:
            return Part(f"{keyword}{PLACE}", (Parameter(count),))
        return Part(f"{keyword}{count}")

    def conditions(self, table: Table) -> list[Part]:
        return [self.condition(table) for _ in range(self.rng.choice([0, 1, 1, 1, 2, 3]))]

    def condition(self, table: Table, prefix: str = "") -> Part:
        column = self.column(table)
        name = prefix + column.name
        if column.is_nested or self.rng.random() < 0.08:
            return Part(f"{name} IS {self.rng.choice(['', 'NOT '])}NULL")
        kind = self.rng.random()
        if kind < 0.55:
            operator = self.rng.choice(["=", "=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
            part = f"{name} {operator} " + self.operand(column)
        elif kind < 0.7:
            part = f"{name} BETWEEN " + self.operand(column) + " AND " + self.operand(column)
        elif kind < 0.85:
            values = [self.operand(column) for _ in range(self.rng.randint(1, 4))]
            part = f"{name} {self.rng.choice(['', 'NOT '])}IN (" + join(", ", values) + ")"
        elif kind < 0.92:
            part = "(" + self.condition(table, prefix) + " OR " + self.condition(table, prefix) + ")"
        elif column.type == "VARCHAR":
            pattern = self.rng.choice(["a%", "%a", "%e%", "_", "", "%", "a_%"])
            part = Part(f"{name} LIKE ") + Part(PLACE, (Parameter(pattern),))
        else:
            part = f"{prefix}id {self.rng.choice(['<', '>='])} " + Part(PLACE, (Parameter(self.rng.randint(0, 3_000)),))
        return "NOT (" + part + ")" if self.rng.random() < 0.1 else part

    def odd(self, column: Column) -> str:
        """A text, or for numbers a number, that its type may not have."""
        if column.is_integer and self.rng.random() < 0.6:
            return f"({self.rng.choice([300, -129, 40_000, 65_536, -1, 2**31, 2**32, 2**63, 2**64, 1.5])})"
        return literal(self.rng.choice(ODD))

    def operand(self, column: Column) -> Part:
        """A value to compare with, which does not fail."""
        text = self.rng.choice(column.values)
        if self.rng.random() < 0.3:
            known = next((ty for ty in VALUES if ty == column.type), None)
            text = self.rng.choice(make_values(self.rng, known)) if known else text
        kind = self.rng.random()
        if kind < 0.3:
            return Part(literal(text, column.type))
        if kind < 0.4:
            return Part(literal(text))
        if kind < 0.5:
            return Part(f"try_cast({self.odd(column)} AS {column.type})")
        if kind < 0.53:
            return Part("NULL")
        if "\0" in text or column.type == "BLOB":
            return Part(literal(text, column.type))
        if column.is_integer:
            number = self.rng.choice([int(text), int(text), self.rng.randint(-200, 70_000)])
            as_type = self.rng.random() < 0.3 and number == int(text)
            if kind < 0.65:
                return Part(f"({number})")
            return Part(PLACE, (Parameter(number, column.type if as_type else None),))
        if column.type == "DOUBLE" and text.lstrip("-") not in ("nan", "inf") and kind < 0.8:
            return Part(PLACE, (Parameter(float(text)),))
        if column.type == "BOOLEAN":
            return Part(PLACE, (Parameter(text == "true"),))
        if kind < 0.75:
            return Part(f"{PLACE}::{column.type}", (Parameter(text),))
        return Part(PLACE, (Parameter(text),))
