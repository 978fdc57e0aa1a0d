"""Runs every example of README.md, CONTRIBUTING.md and docs/, and follows every link.

    check.py --martd MARTD --marts PARQUET_DIR [DOCUMENT…]

What a fenced block is, its first word says, and what follows it:

- `console`: commands after `$ `, each with what it prints. Ids, times and durations may differ, `…` stands for anything, and
  an answer in JSON may be broken into lines.
- `sh`, `python`: run, and must succeed. `sh no-run: REASON` is only parsed, and its make targets and martd commands must be there.
- anything else of `PLAIN` is not run. Indented code and other words are errors.

A document's blocks share a folder. In it lie `orders.parquet`, the same in `lake/mart` (`PARQUET_DIR=lake`), and `shop.duckdb`. Port 8321 is a martd that serves the
example project's marts, and port 5432 for clients of PostgreSQL; a block that starts a martd has that one to itself.
"""

import argparse
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLAIN = {"text", "json", "yaml", "sql", "diff", "ini", "rust", "mermaid"}
PORT = "8321"
PG_PORT = "5432"
PATIENCE_S = 60
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^ *```$", re.M | re.S)
SERVES = re.compile(r"\bmartd serve\b.*&$", re.S)
MASKS = [
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b[0-9a-f]{32}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?UTC|Z)?", "TIME"),
    (r'("(elapsed|age_seconds|max_loaded_at_time_ago_in_s)": ?)[\d.e-]+', r"\1N"),
]
ORDERS = """SELECT * FROM (VALUES (1, 'ada', DATE '2026-11-01', 12.50), (2, 'bob', DATE '2026-11-02', 30.00),
    (3, 'ada', DATE '2026-11-03', 7.25)) AS t(order_id, customer, day, amount)"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    line: int
    language: str
    note: str
    body: str


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        language, _, note = match["info"].strip().partition(" ")
        body = "\n".join(line.removeprefix(match["indent"]) for line in match["body"].splitlines())
        yield Block(text.count("\n", 0, match.start()) + 1, language, note, body + "\n")


def is_open(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return command.endswith("\\")


def commands(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it should print."""
    lines = body.splitlines()
    while lines:
        command = lines.pop(0)
        if not command.startswith("$ "):
            raise ValueError(f"a console block has no command before {command!r}")
        command = command[2:]
        while lines and is_open(command):
            command += "\n" + lines.pop(0)
        output = []
        while lines and not lines[0].startswith("$ "):
            output.append(lines.pop(0))
        yield command, "\n".join(output)


def differs(expected: str, actual: str) -> bool:
    for pattern, mask in MASKS:
        expected, actual = re.sub(pattern, mask, expected), re.sub(pattern, mask, actual)
    # JSON may be broken into lines; columns are as wide as their values.
    space, kept = (r"\s+", "") if expected.lstrip().startswith("{") else (r"[ \t]+", " ")
    expected, actual = (re.sub(space, kept, text.strip()).replace(" \n", "\n") for text in (expected, actual))
    pattern = ".*?".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, actual, re.S) is None


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def until_ready(port: str) -> str:
    return f"""for _ in $(seq {PATIENCE_S * 20}); do curl -sf 127.0.0.1:{port}/readyz >/dev/null && break
        kill -0 $! || {{ echo "martd has ended"; break; }}; sleep 0.05; done"""


class Examples:
    """Runs blocks against one martd."""

    def __init__(self, martd: Path, port: str, pg_port: str, scratch: Path) -> None:
        self.port, self.pg_port, self.scratch = port, pg_port, scratch
        # `martd` and `python` are what an installed martd and an activated environment give.
        tools = scratch / "bin"
        tools.mkdir()
        (tools / "martd").symlink_to(martd.resolve())
        (tools / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (tools / "python").chmod(0o755)
        self.environment = {
            "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(scratch), "LC_ALL": "C.UTF-8", "RUST_LOG": "off",
            "PARQUET_DIR": "lake",
        }

    def folder(self, name: str) -> Path:
        import duckdb

        folder = self.scratch / name
        (folder / "lake/mart").mkdir(parents=True)
        for parent in (folder, folder / "lake/mart"):
            duckdb.sql(f"COPY ({ORDERS}) TO '{parent}/orders.parquet' (FORMAT parquet)")
        with duckdb.connect(folder / "shop.duckdb") as shop:
            shop.execute(f"CREATE TABLE orders AS {ORDERS}")
        return folder

    def bash(self, script: str, folder: Path, port: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | {"MARTD_SERVER": f"127.0.0.1:{port}"}
        script = "trap 'code=$?; kill $(jobs -p) 2>/dev/null || true; wait; exit $code' EXIT\n" + script
        return subprocess.run(
            ["bash", "-c", script], cwd=folder, env=environment, text=True, timeout=2 * PATIENCE_S, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )

    def console(self, block: Block, folder: Path) -> Iterator[str]:
        port, mark = self.port, "@@@@"
        script, expected = "", []
        for command, output in commands(block.body):
            if SERVES.search(command):
                port = free_port()
                script += f"export MARTD_LISTEN=127.0.0.1:{port}\n"
                command = command.removesuffix("&") + f">/dev/null 2>&1 &\n{until_ready(port)}"
            script += f"echo {mark}\n{command.replace(PORT, port)}\n"
            expected.append((command, output))
        printed = self.bash(script, folder, port).stdout.replace(port, PORT).split(mark + "\n")[1:]
        for (command, output), actual in zip(expected, printed, strict=True):
            if differs(output, actual):
                yield f"$ {command}\n  should print:\n{output}\n  prints:\n{actual}"

    def script(self, block: Block, folder: Path) -> Iterator[str]:
        text = block.body.replace(PORT, self.port).replace(PG_PORT, self.pg_port)
        if block.language == "python":
            text = f"python - <<'END_OF_EXAMPLE'\n{text}\nEND_OF_EXAMPLE"
        run = self.bash(f"set -euo pipefail\n{text}", folder, self.port)
        if run.returncode:
            yield f"fails with {run.returncode}: {run.stdout}"

    def unrun(self, block: Block, folder: Path) -> Iterator[str]:
        if not block.note.removeprefix("no-run:").strip():
            yield "no-run has no reason"
        parsed = subprocess.run(["bash", "-n", "-c", block.body], capture_output=True, text=True, check=False)
        if parsed.returncode:
            yield parsed.stderr
        for target in re.findall(r"^(?:\$ )?(?:sudo )?make ([a-z-]+)", block.body, re.M):
            if not re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M):
                yield f"make has no target {target}"
        for command in re.findall(r"^(?:sudo )?(?:[A-Z_]+=\S+ )*martd ([a-z]+)", block.body, re.M):
            if self.bash(f"martd {command} --help", folder, self.port).returncode:
                yield f"martd has no command {command}"

    def run(self, block: Block, folder: Path) -> Iterator[str]:
        match block.language:
            case "console":
                yield from self.console(block, folder)
            case "sh" if block.note.startswith("no-run:"):
                yield from self.unrun(block, folder)
            case "sh" | "python":
                yield from self.script(block, folder)
            case language if language not in PLAIN:
                yield f"a block of {language or 'no language'}: name one of console, sh, python, {', '.join(sorted(PLAIN))}"


def prose(text: str) -> str:
    """The text without its code, with as many lines."""
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    return re.sub(r"`[^`\n]*`", lambda match: "`" * len(match[0]), text)


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(document: Path) -> Iterator[str]:
    text = document.read_text()
    for match in re.finditer(r"\]\(([^)\s]+)\)", prose(text)):
        # Code in the text was blanked out without moving anything, and links have none.
        target, _, anchor = match[1].partition("#")
        if re.match(r"[a-z]+:", match[1]):
            continue
        file = (document.parent / target) if target else document
        line = text.count("\n", 0, match.start()) + 1
        if not file.exists():
            yield f"{line}: {target} is not there"
        elif anchor and anchor not in anchors(file.read_text()):
            yield f"{line}: {target} has no heading #{anchor}"


def shape(document: Path) -> Iterator[str]:
    """Indented code, which no test would run; and what makes a README too long to read."""
    text = prose(document.read_text())
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"^(?: {4}|\t)\S", line) and not re.match(r"^\s+(?:[-*]|\d+\.) ", line):
            yield f"{number}: indented code; put it into a fenced block"
    if document.name != "README.md" or document.parent != ROOT:
        return
    lines = document.read_text().splitlines()
    if len(lines) > 150:
        yield f"{len(lines)} lines, 150 at most"
    paragraph = 0
    for number, line in enumerate(text.splitlines(), 1):
        begins = not line or line.startswith(("|", "- ", "#"))
        paragraph = int(line.startswith("- ")) if begins else paragraph + 1
        if paragraph > 5 or (len(line) > 130 and not line.startswith("|")):
            yield f"{number}: a paragraph over five lines, or a line over 130 characters"


def start(martd: Path, marts: Path, port: str, pg_port: str) -> subprocess.Popen[bytes]:
    settings = {
        "PARQUET_DIR": str(marts), "MARTD_LISTEN": f"127.0.0.1:{port}", "MARTD_PG_LISTEN": f"127.0.0.1:{pg_port}",
        "RUST_LOG": "warn",
    }
    process = subprocess.Popen([martd, "serve"], env=os.environ | settings)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz")
            return process
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    process.kill()
    raise SystemExit(f"martd does not become ready over {marts}")


def check(documents: list[Path], martd: Path, marts: Path) -> int:
    port, pg_port, faults, count = free_port(), free_port(), 0, 0

    def complain(document: Path, problem: str) -> None:
        nonlocal faults
        faults += 1
        name = document.relative_to(ROOT) if document.is_relative_to(ROOT) else document
        print(f"{name}:{problem}\n", file=sys.stderr)

    with tempfile.TemporaryDirectory() as scratch:
        # As fresh as a build that has just ended.
        fresh = shutil.copytree(marts, Path(scratch) / "marts", copy_function=shutil.copyfile)
        process = start(martd, fresh, port, pg_port)
        try:
            examples = Examples(martd, port, pg_port, Path(scratch))
            for document in documents:
                folder = examples.folder(f"{document.stem}-{count}")
                for problem in [*broken_links(document), *shape(document)]:
                    complain(document, problem)
                for block in blocks(document.read_text()):
                    count += block.language in ("console", "sh", "python")
                    for problem in examples.run(block, folder):
                        complain(document, f"{block.line}: {problem}")
        finally:
            process.terminate()
            process.wait()
    print(f"{count} examples in {len(documents)} documents, {faults} faults")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--martd", type=Path, required=True)
    parser.add_argument("--marts", type=Path, required=True, help="PARQUET_DIR, with the example project's marts")
    parser.add_argument("documents", type=Path, nargs="*")
    arguments = parser.parse_args()
    others = [ROOT / "CONTRIBUTING.md", ROOT / "deploy/kubernetes/README.md"]
    ours = [ROOT / "README.md", *others, *sorted((ROOT / "docs").glob("*.md"))]
    documents = [document.resolve() for document in arguments.documents] or ours
    return min(check(documents, arguments.martd, arguments.marts), 1)


if __name__ == "__main__":
    sys.exit(main())
