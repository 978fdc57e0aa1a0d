"""Dagster's view of the project: an asset for each mart, and a last one that is there once martd serves the build.

Loading this runs no dbt: the webserver loads it too, and where it runs the marts cannot be written. `dbt parse` has to have made
the manifest before (`make manifest`).
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from dagster import (
    AssetExecutionContext,
    AssetSelection,
    DagsterInvariantViolationError,
    DefaultScheduleStatus,
    Definitions,
    Failure,
    MaterializeResult,
    ScheduleDefinition,
    asset,
    define_asset_job,
)
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, dbt_assets

from .martd import Held, Martd, Unreachable

PROJECT = Path(__file__).resolve().parent.parent
MANIFEST = PROJECT / os.environ.get("DBT_TARGET_PATH", "target") / "manifest.json"
if not MANIFEST.exists():
    raise DagsterInvariantViolationError(f"{MANIFEST} is missing: run make manifest, or dbt parse where the image is built.")

# Beside this Python, or wherever else there is one.
DBT = shutil.which("dbt", path=os.pathsep.join([os.fspath(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]))
if DBT is None:
    raise DagsterInvariantViolationError(f"there is no dbt beside {sys.executable} and none on PATH: install requirements.txt.")

PASSING = {"success", "pass", "warn", "no-op"}


class Translator(DagsterDbtTranslator):
    """A failed test does not end the step that found it: the next one tells what martd does about it."""

    def get_asset_check_spec(self, *arguments, **named):
        spec = super().get_asset_check_spec(*arguments, **named)
        return spec and spec._replace(blocking=False)


@dbt_assets(manifest=MANIFEST, name="dbt_build", dagster_dbt_translator=Translator())
def marts(context: AssetExecutionContext, dbt: DbtCliResource):
    variables = os.environ.get("DBT_VARS")
    arguments = ["build", "--vars", variables] if variables else ["build"]
    # Of no use after the run, and 5 MB each.
    with tempfile.TemporaryDirectory(prefix="dbt-target-") as target:
        build = dbt.cli(arguments, context=context, raise_on_error=False, target_path=Path(target))
        yield from build.stream()
        error = build.get_error()
        if error and not only_tests_failed(build):
            raise error


def only_tests_failed(build):
    try:
        results = build.get_artifact("run_results.json")["results"]
    except FileNotFoundError:
        return False
    return all(result["unique_id"].startswith(("test.", "unit_test.")) or result["status"] in PASSING for result in results)


@asset(deps=[marts], description="The last build, as martd serves it. Fails with martd's reason when it is held.")
def snapshot(context: AssetExecutionContext) -> MaterializeResult:
    build = latest_invocation(context.instance, marts.keys)
    if build is None:
        raise Failure("No mart has been built yet: run the job build_marts.")
    context.log.info(f"Waiting for martd to serve the build {build}")
    try:
        served = Martd.from_environment().wait(build)
    except (Held, Unreachable) as error:
        raise Failure(str(error), allow_retries=isinstance(error, Unreachable)) from error
    return MaterializeResult(
        metadata={"invocation_id": build, "snapshot_id": served["id"], "generation": served["generation"]},
    )


def latest_invocation(instance, keys):
    """The newest, not this run's: run again after a hold, this step has no marts of its own."""
    events = filter(None, instance.get_latest_materialization_events(keys).values())
    newest = max(events, key=lambda event: event.timestamp, default=None)
    return newest and newest.asset_materialization.metadata["invocation_id"].value


build_marts = define_asset_job("build_marts", selection=AssetSelection.all())

# A mart's freshness is a warning after 26 hours: one night's build may be late, but not missing.
nightly = ScheduleDefinition(job=build_marts, cron_schedule="0 3 * * *", default_status=DefaultScheduleStatus.RUNNING)

definitions = Definitions(
    assets=[marts, snapshot],
    jobs=[build_marts],
    schedules=[nightly],
    resources={
        "dbt": DbtCliResource(
            project_dir=os.fspath(PROJECT), profiles_dir=os.fspath(PROJECT), dbt_executable=DBT,
        )
    },
)
