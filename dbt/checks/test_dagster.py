"""The Dagster code location: what loading it does not do, and its job, run in process with a real martd behind it."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from daemon import Daemon
from workspace import DBT, PROJECT, Workspace

sys.path.insert(0, str(PROJECT))
from orchestration.martd import Martd, Unreachable  # noqa: E402

RUN_JOB = """
import json, sys
from dagster import AssetKey, DagsterInstance
from orchestration.definitions import definitions

instance = DagsterInstance.ephemeral()
job = definitions.resolve_job_def("build_marts")
runs = []
for selection in json.loads(sys.argv[1]):
    keys = selection and [AssetKey(key) for key in selection]
    run = job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=keys)
    failures = {e.step_key: e.step_failure_data.error for e in run.all_events if e.is_step_failure}
    built = [e for e in run.all_events if e.event_type_value == "ASSET_MATERIALIZATION"]
    runs.append({
        "failures": {step: f"{error.message} {error.cause and error.cause.message}" for step, error in failures.items()},
        "built": [e.asset_key.to_user_string() for e in built],
        "metadata": {name: value.value for name, value in built[-1].materialization.metadata.items()} if built else {},
    })
print(json.dumps({"runs": runs}))
"""

# What the webserver does with its workspace. Every program that it or its code server starts is written down.
LOAD_WORKSPACE = """
import json, sys
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

with DagsterInstance.get() as instance:
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([sys.argv[1]])) as process:
        location, = process.create_request_context().get_code_location_entries().values()
        repository, = location.code_location.get_repositories().values() if location.code_location else [None]
        print(json.dumps({
            "error": location.load_error and location.load_error.message,
            "jobs": sorted(job.name for job in repository.get_all_jobs()) if repository else [],
            "schedules": [schedule.name for schedule in repository.get_schedules()] if repository else [],
            "assets": sorted(node.asset_key.to_user_string() for node in repository.get_asset_node_snaps()) if repository else [],
        }))
"""
WRITE_DOWN = """
import os, sys

def write_down(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        with open(os.environ["PROGRAMS"], "a") as file:
            file.write(f"{arguments[:2]}\\n")

sys.addaudithook(write_down)
"""

# Two runs asked for as the webserver does, and the daemon's look at the queue. What it takes is not really started.
QUEUE = """
import json, sys
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from orchestration.definitions import definitions

with DagsterInstance.get() as instance, WorkspaceProcessContext(instance, WorkspaceFileTarget([sys.argv[1]])) as process:
    instance.run_launcher.launch_run = lambda context: None
    workspace = process.create_request_context()
    location, = workspace.code_locations
    repository, = location.get_repositories().values()
    job = repository.get_full_job("build_marts")
    runs = []
    for _ in range(2):
        run = instance.create_run_for_job(
            definitions.resolve_job_def("build_marts"),
            remote_job_origin=job.get_remote_origin(), job_code_origin=job.get_python_origin(),
        )
        instance.submit_run(run.run_id, workspace)
        runs.append(run.run_id)

    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    statuses = []
    def look():
        statuses.append([instance.get_run_by_id(run).status.value for run in runs])
    look()
    list(daemon.run_iteration(process))
    look()
    list(daemon.run_iteration(process))
    look()
    instance.report_run_canceled(instance.get_run_by_id(runs[0]))
    list(daemon.run_iteration(process))
    look()
    print(json.dumps({"statuses": statuses, "telemetry": instance.telemetry_enabled}))
"""


# Runs that their daemon did not survive, beside one that is not begun with and one that is done.
INTERRUPTED = """
import json
from dagster import DagsterInstance, DagsterRunStatus
from orchestration.definitions import definitions
from orchestration.start_daemon import report_interrupted

with DagsterInstance.get() as instance:
    job = definitions.resolve_job_def("build_marts")
    before = ["STARTING", "STARTED", "CANCELING", "NOT_STARTED", "SUCCESS"]
    runs = [instance.create_run_for_job(job, status=DagsterRunStatus(status)).run_id for status in before]
    reported = report_interrupted(instance)
    monitoring = instance.run_monitoring_enabled and instance.run_monitoring_max_runtime_seconds
    print(json.dumps({
        "statuses": [instance.get_run_by_id(run).status.value for run in runs],
        "reported": sorted(runs.index(run) for run in reported), "hung": monitoring,
    }))
"""


class InProject(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.space = Workspace.new(cls, transactions=300)
        cls.home = cls.space.root / "dagster"
        cls.home.mkdir()
        shutil.copy(PROJECT / "orchestration/dagster.yaml", cls.home)

    def python(self, script, *arguments, **env):
        run = subprocess.run(
            [sys.executable, "-c", script, *arguments], cwd=self.space.project, capture_output=True, text=True,
            env=self.space.environment() | {"DAGSTER_HOME": str(self.home), "DAGSTER_DISABLE_TELEMETRY": "1"} | env,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        # Dagster's own servers log to the same place.
        return json.loads([line for line in run.stdout.splitlines() if line.startswith("{")][-1])


class Location(InProject):
    def files(self):
        """All but Dagster's own, with the times of their last change."""
        files = (path for path in self.space.root.rglob("*") if self.home not in path.parents and "__pycache__" not in path.parts)
        return {path: path.stat().st_mtime_ns for path in files}

    def test_rollback_reason_the_webserver_runs_no_dbt(self):
        """One of four reasons why the first attempt was rolled back: a webserver that built at its start, on a read-only mount."""
        watch = Path(tempfile.mkdtemp(dir=self.home))
        (watch / "sitecustomize.py").write_text(WRITE_DOWN)
        programs = watch / "programs"
        env = {"PYTHONPATH": str(watch), "PROGRAMS": str(programs), "PYTHONDONTWRITEBYTECODE": "1"}
        workspace = str(self.space.project / "orchestration/workspace.yaml")

        self.space.dbt("parse")
        before = self.files()
        loaded = self.python(LOAD_WORKSPACE, workspace, **env)
        self.assertIsNone(loaded["error"])
        self.assertEqual(loaded["jobs"], ["__ASSET_JOB", "build_marts"])
        self.assertEqual(loaded["schedules"], ["build_marts_schedule"])
        self.assertIn("mart/fct_transactions", loaded["assets"])
        self.assertIn("snapshot", loaded["assets"])

        started = programs.read_text().splitlines()
        self.assertTrue(any("dagster" in program and "grpc" in program for program in started), started)
        self.assertEqual([program for program in started if "/dbt'" in program or "dbt.cli" in program], [])
        # dbt run in process would have left its log and its manifest.
        self.assertEqual(self.files(), before)
        self.assertFalse(self.space.marts.exists())

        shutil.rmtree(self.space.project / "target")
        loaded = self.python(LOAD_WORKSPACE, workspace, **env)
        self.assertIn("run make manifest", loaded["error"])
        self.assertFalse((self.space.project / "target").exists())

    def test_one_run_at_a_time_and_none_where_asked_for(self):
        self.space.dbt("parse")
        queue = self.python(QUEUE, str(self.space.project / "orchestration/workspace.yaml"))
        waiting, taken = "QUEUED", "STARTING"
        self.assertEqual(queue["statuses"], [[waiting, waiting], [taken, waiting], [taken, waiting], ["CANCELED", taken]])
        self.assertFalse(queue["telemetry"])


    def test_an_interrupted_run_does_not_block_the_next(self):
        self.space.dbt("parse")
        home = self.space.root / "interrupted"
        home.mkdir()
        shutil.copy(self.home / "dagster.yaml", home)
        found = self.python(INTERRUPTED, DAGSTER_HOME=str(home))
        self.assertEqual(found["statuses"], ["FAILURE", "FAILURE", "FAILURE", "NOT_STARTED", "SUCCESS"])
        self.assertEqual(found["reported"], [0, 1, 2])
        self.assertGreater(found["hung"], 0, "nobody ends a run that hangs")

    def test_dbt_is_found_elsewhere_on_the_path(self):
        self.space.dbt("parse")
        elsewhere, python = (Path(tempfile.mkdtemp(dir=self.home)) for _ in range(2))
        (elsewhere / "dbt").symlink_to(DBT)
        script = "import json; from orchestration import definitions; print(json.dumps({'dbt': definitions.DBT}))"
        # As another environment's Python that has Dagster; its helper process starts before.
        tracker = "from multiprocessing import resource_tracker; resource_tracker.ensure_running()"
        script = f"{tracker}; import sys; sys.executable = {str(python / 'python')!r}; {script}"
        found = self.python(script, PATH=f"{elsewhere}:/usr/bin:/bin")
        self.assertEqual(found["dbt"], str(elsewhere / "dbt"))


class Job(InProject):
    """On a project of two marts, one of which has a test."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for folder in ("models", "tests"):
            shutil.rmtree(cls.space.project / folder)
        cls.space.write("models/3_mart/a.sql", "select 1 as x")
        cls.space.write("models/3_mart/b.sql", "select x from {{ ref('a') }}")
        cls.space.write("models/3_mart/marts.yml", "models: [{name: b, columns: [{name: x, data_tests: [not_null]}]}]")
        cls.space.dbt("parse")
        cls.space.marts.mkdir(parents=True)
        cls.temporary = cls.space.root / "tmp"
        cls.temporary.mkdir()
        cls.daemon = Daemon(cls.space.marts.parent)
        cls.addClassCleanup(cls.daemon.stop)

    def run_job(self, *selections, **env):
        env = {"MARTD_URL": self.daemon.url, "TMPDIR": str(self.temporary)} | env
        return self.python(RUN_JOB, json.dumps(selections), **env)["runs"]

    def test_the_job_ends_when_martd_serves_the_build(self):
        run, = self.run_job(None)
        self.assertEqual(run["failures"], {})
        self.assertEqual(run["built"], ["mart/a", "mart/b", "snapshot"])
        served = self.daemon.get("/v1/snapshot")
        self.assertEqual(run["metadata"]["invocation_id"], self.space.build)
        self.assertEqual(run["metadata"]["invocation_id"], served["build"]["invocation_id"])
        self.assertEqual(run["metadata"]["snapshot_id"], served["id"])
        left = [path.name for path in (self.space.project / "target").iterdir() if path.is_dir() and "build" in path.name]
        self.assertEqual(left + list(self.temporary.iterdir()), [], "a target of each run is left behind")

        with self.subTest("a failed test: the build is done, and martd holds it"):
            self.space.write("models/3_mart/b.sql", "select nullif(x, 1) as x from {{ ref('a') }}")
            # The step alone, once more: it waits for the same build.
            for run in self.run_job(None, ["snapshot"]):
                self.assertEqual(list(run["failures"]), ["snapshot"], run)
                self.assertIn(f"holds the build {self.space.build}", run["failures"]["snapshot"])
                self.assertIn("not_null_b_x", run["failures"]["snapshot"])
            self.assertEqual(self.daemon.query("select x from mart.b"), [{"x": 1}])

        with self.subTest("a failed model: dbt's own error, and nothing to wait for"):
            self.space.write("models/3_mart/b.sql", "select error('no such luck') as x from {{ ref('a') }}")
            run, = self.run_job(None)
            self.assertEqual(list(run["failures"]), ["dbt_build"])
            self.assertIn("no such luck", run["failures"]["dbt_build"])

        with self.subTest("sources that cannot be loaded"):
            run, = self.run_job(None, DBT_VARS="{transactions: 1}")
            self.assertEqual(list(run["failures"]), ["dbt_build"])
            self.assertIn("at least 1 user and 60 transactions", run["failures"]["dbt_build"])


class Webserver(unittest.TestCase):
    def test_it_is_not_healthy_without_its_code(self):
        sys.path.insert(0, str(PROJECT / "orchestration"))
        from healthcheck import problem

        entry = lambda kind, **more: {"locationEntries": [{"name": "marts", "locationOrLoadError": {"__typename": kind} | more}]}
        for workspace, expected in (
            (entry("RepositoryLocation"), None),
            (entry("PythonError", message="target/manifest.json is missing"), "marts is not loaded: target/manifest.json is missing"),
            ({"locationEntries": [{"name": "marts", "locationOrLoadError": None}]}, "not loaded: not yet"),
            ({"locationEntries": []}, "no code location"),
            ({"message": "no such module"}, "no code location: no such module"),
            (None, "does not answer"),
        ):
            class Answer(BaseHTTPRequestHandler):
                def do_POST(self):
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(json.dumps({"data": {"workspaceOrError": workspace}} if workspace else {}).encode())

                def log_message(self, *_):
                    pass

            with self.subTest(expected), HTTPServer(("127.0.0.1", 0), Answer) as server:
                threading.Thread(target=server.handle_request).start()
                found = problem(f"http://127.0.0.1:{server.server_port}")
                self.assertIn(expected or "None", str(found))
        self.assertIn("does not answer", problem("http://127.0.0.1:1"))


class Waiting(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        root = Path(tempfile.mkdtemp(prefix="martd-wait-"))
        cls.addClassCleanup(shutil.rmtree, root)
        (root / "mart").mkdir()
        (root / "tokens").write_text("s3cret user_id=*\n")
        cls.daemon = Daemon(root, MARTD_TOKEN_FILE=str(root / "tokens"))
        cls.addClassCleanup(cls.daemon.stop)

    def test_what_is_wrong_is_named(self):
        for martd, expected in (
            (Martd(self.daemon.url, "s3cret", wait=0), "did not serve the build x within 0 s: no record is of build x yet"),
            (Martd(self.daemon.url, "wrong"), "answered 401: .* MARTD_TOKEN"),
            (Martd(self.daemon.url), "answered 401: .* MARTD_TOKEN"),
            (Martd("http://127.0.0.1:1", wait=0), "http://127.0.0.1:1 .*refused"),
        ):
            with self.subTest(expected), self.assertRaisesRegex(Unreachable, expected):
                martd.wait("x")


if __name__ == "__main__":
    unittest.main()
