"""Makes the files of the folder `files`, with the writers that people use.

    python make.py [WRITER ...] [--environments DIR]

Each writer runs in an environment of its own, with the versions below. Files that are there are replaced; bytes
may differ from those that are committed where a writer puts a time or a random id into its files.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
FILES = HERE / "files"

ARROW = ["pyarrow==26.0.1", "pandas==3.1.1", "numpy==2.4.6"]
# Each writes its folder, with these packages and this function.
WRITERS: dict[str, list[str]] = {
    "duckdb-1.2": ["duckdb==1.2.2"],
    "duckdb-1.3": ["duckdb==1.3.2"],
    "duckdb-1.4": ["duckdb==1.4.4"],
    "duckdb-1.5": ["duckdb==1.5.5"],
    "duckdb-2.0": ["duckdb==2.0.1"],
    "pyarrow": ARROW,
    "pandas": ARROW,
    "polars": ["polars==2.1.0"],
    "datafusion": ["datafusion==55.0.0", *ARROW],
    "fastparquet": ["fastparquet==2026.9.0", "pandas==3.1.1", "numpy==2.4.6"],
    "edges": [*ARROW, "duckdb==1.5.5", "fastparquet==2026.9.0"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("writers", nargs="*", metavar="WRITER", help=", ".join(WRITERS))
    parser.add_argument("--environments", type=Path, help="where they are kept; else they are removed")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        [name] = arguments.writers
        import writers

        folder = FILES / name
        folder.mkdir(parents=True, exist_ok=True)
        writers.run(name, folder)
        return
    with environments(arguments.environments) as directory:
        for name in arguments.writers or WRITERS:
            python = directory / name / "bin/python"
            if not python.exists():
                venv.create(directory / name, with_pip=True)
                install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                subprocess.run([*install, *WRITERS[name]], check=True)
            subprocess.run([python, __file__, name, "--here"], check=True)
            made = list((FILES / name).iterdir())
            print(f"{name}: {len(made)} files, {sum(file.stat().st_size for file in made)} bytes")


@contextmanager
def environments(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)


if __name__ == "__main__":
    main()
