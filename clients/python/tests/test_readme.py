"""The examples of README.md: they run as they stand, and give what they say."""

import ast
import re
from pathlib import Path

from conftest import write_mart
from daemon import Martd

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
RESULT = "# → "


def results(example):
    """The expressions with a result in a comment behind them, and their results."""
    lines = example.splitlines()
    for node in ast.walk(ast.parse(example)):
        if isinstance(node, ast.Expr) and RESULT in lines[node.end_lineno - 1]:
            yield node, lines[node.end_lineno - 1].partition(RESULT)[2].strip()


class Checked(ast.NodeTransformer):
    """Asks `check` about each of those expressions."""

    def __init__(self, example):
        self._results = {(node.lineno, node.col_offset): result for node, result in results(example)}

    def visit_Expr(self, node):
        if (result := self._results.get((node.lineno, node.col_offset))) is None:
            return node
        call = ast.Call(ast.Name("check", ast.Load()), [node.value, ast.Constant(result)], [])
        return ast.copy_location(ast.Expr(call), node)


def test_the_examples(tmp_path, monkeypatch, recwarn):
    write_mart(
        tmp_path / "parquet",
        "fct_transactions",
        "FROM (VALUES (1, 'alice', 'savings', DATE '2026-01-01', 100.00), (2, 'alice', 'main', DATE '2026-01-02', -12.50), "
        "(3, 'alice', 'savings', DATE '2026-01-03', 0.75)) t(transaction_id, user_id, account, day, amount)",
    )
    assert len(EXAMPLES) == 7
    seen = []

    def check(value, result):
        assert repr(value) == result
        seen.append(result)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("martd_client.client._default", None)
    with Martd(tmp_path / "parquet", MARTD_PUBLISH="file") as daemon:
        monkeypatch.setenv("MARTD_URL", daemon.ready().url)
        names = {"check": check}
        for example in EXAMPLES:
            tree = ast.fix_missing_locations(Checked(example).visit(ast.parse(example)))
            exec(compile(tree, README, "exec"), names)  # noqa: S102 (our own examples)
    assert len(seen) == README.read_text().count(RESULT)
    assert {path.name for path in tmp_path.iterdir()} == {"parquet", "totals.csv", "totals.parquet"}
