"""Gives dbt's DuckDB the PostgreSQL extension and a secret, `application`, made of the POSTGRES_* settings.

It is a plugin of dbt-duckdb because what a macro runs is logged, and this way the password never passes through one.
"""

import importlib.util
import os
from pathlib import Path

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt_common.exceptions import DbtRuntimeError

REQUIRED = {"host": "POSTGRES_HOST", "user": "POSTGRES_USER", "database": "POSTGRES_DB"}
OPTIONAL = {"port": "POSTGRES_PORT", "password": "POSTGRES_PASSWORD"}


class Plugin(BasePlugin):
    def configure_connection(self, conn):
        missing = [variable for variable in REQUIRED.values() if not os.environ.get(variable)]
        if missing:
            raise DbtRuntimeError(f"The target postgres needs {', '.join(missing)}: set it, or start a database with make postgres.")
        conn.load_extension(str(extension()))

        variables = REQUIRED | OPTIONAL
        values = {key: os.environ[variable] for key, variable in variables.items() if os.environ.get(variable)}
        options = ", ".join(f"{key} '{quoted(value)}'" for key, value in values.items())
        conn.execute(f"create or replace secret application (type postgres, {options})")
        try:
            conn.execute("attach '' as application (type postgres, secret application, read_only)")
            conn.execute("detach application")
        except duckdb.Error as error:
            raise DbtRuntimeError(f"{error}\nSettings: {', '.join(variables.values())}.") from None


def extension():
    """The file that came with the Python package: nothing is downloaded, and nothing kept in anyone's home directory."""
    package = importlib.util.find_spec("duckdb_extension_postgres_scanner")
    files = Path(package.origin).parent.glob(f"extensions/v{duckdb.__version__}/*.duckdb_extension") if package else ()
    file = next(iter(files), None)
    if file is None:
        raise DbtRuntimeError(
            f"DuckDB's PostgreSQL extension is not installed for DuckDB {duckdb.__version__}: run make bootstrap, or"
            f" pip install duckdb-extension-postgres-scanner=={duckdb.__version__}."
        )
    return file


def quoted(value):
    return value.replace("'", "''")
