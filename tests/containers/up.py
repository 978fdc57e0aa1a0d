"""What `docker-compose up` makes of the compose file: steps in this order, each of which goes on where the last one ended."""

import datetime as dt
import json
import os
import re
import shutil
import signal
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import engine
import yaml

BACKEND, DAGSTER = "http://127.0.0.1:8000", "http://127.0.0.1:3000"
PARQUET_DIR = "/opt/dagster/dagster_home/data/parquet"
WRITERS = {"first-build", "dagster-daemon"}
MARTD_USER = 65532
PICTURES = Path(__file__).parents[2] / "target/containers"
NOBODY = "00000000-0000-0000-0000-000000000000"
SOMEBODY = f"user_id={NOBODY}"


class Compose:
    def __init__(self, own, tree):
        self.own, self.tree = own, tree
        text = (tree / "docker-compose.yml").read_text()
        self.services = yaml.safe_load(text)["services"]
        # Debian's compose is of the time before files had names: the one line that it does not know.
        self.text = re.sub(r"^name: martd\n", "", text, flags=re.M)
        settings = (line.split("=", 1) for line in (tree / ".env").read_text().splitlines())
        self.settings = dict(settings)

    def __call__(self, *arguments):
        program = engine.program(self.own.cache, "docker-compose")
        command = ["/usr/bin/python3", program, "--no-ansi", "--project-name", "martd", "--file", "-", *arguments]
        return self.own.run(*command, input=self.text, cwd=self.tree)

    def inspect(self, service):
        name = f"martd_{service}_1"
        return json.loads(self.own.docker("inspect", name))[0]

    def state(self, service):
        return self.inspect(service)["State"]

    def health(self, service):
        return self.state(service).get("Health", {}).get("Status")

    def exec(self, service, *command, check=True):
        return self.own.run("docker", "exec", f"martd_{service}_1", *command, check=check)

    def logs(self, service):
        result = self.own.run("docker", "logs", f"martd_{service}_1")
        return result.stdout + result.stderr

    def address(self, service):
        [network] = self.inspect(service)["NetworkSettings"]["Networks"].values()
        return network["IPAddress"]

    def martd(self, path, token=None, scope=None, body=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Martd-Scope": scope} if scope else {}
        return ask(f"http://{self.address('martd')}:8321{path}", headers, body)

    def users(self):
        sql = "select id from finance.users order by id"
        return self.exec("postgres", "psql", "--no-align", "--tuples-only", "--username=finance", "--command", sql).stdout.split()

    def query(self, sql, scope, token=None):
        token = token or self.settings["MARTD_BACKEND_TOKEN"]
        return self.martd("/v1/query", token, scope, {"sql": sql})

    def snapshot(self):
        return self.martd("/v1/snapshot", self.settings["MARTD_DAGSTER_TOKEN"])[1]


def ask(url, headers=None, body=None):
    """(status, JSON) of the answer; 0 where there is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read() or "null")
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        return error.code, json.loads(text) if text.startswith("{") else text
    except OSError as error:
        return 0, str(error)


def wait_for(what, condition, seconds=120):
    """The first thing that is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.25)
    return found


def moment(text):
    return dt.datetime.fromisoformat(re.sub(r"\.(\d{6})\d*", r".\1", text).replace("Z", "+00:00"))


def status_of(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def martd_processes():
    """All of them in this namespace, by what they run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "exe").endswith("/martd"):
                found.append(int(folder.name))
        except OSError:
            pass
    return sorted(found)


# The steps.

def a_fresh_up_ends(compose):
    compose("up", "-d", "--no-build")


def each_starts_after_what_it_waits_for(compose):
    state = {name: compose.state(name) for name in compose.services}
    assert state["first-build"]["ExitCode"] == 0, compose.logs("first-build")[-2000:]
    assert moment(state["dagster-daemon"]["StartedAt"]) > moment(state["first-build"]["FinishedAt"])
    [record] = (compose.tree / "data/parquet/mart/_builds").glob("*.json")
    assert moment(state["backend"]["StartedAt"]).timestamp() > record.stat().st_mtime, "the backend has a whole build to ask"
    assert moment(state["first-build"]["StartedAt"]) > moment(state["postgres"]["StartedAt"])
    assert compose.health("martd") == "healthy"
    marts = compose.snapshot()["marts"]
    files = list((compose.tree / "data/parquet/mart").glob("*.parquet"))
    assert len(marts) == len(files) >= 11, f"{len(marts)} of {len(files)}"


def all_become_healthy(compose):
    for name, service in compose.services.items():
        # The backend's check is its image's, and the daemon's is minutes apart.
        if ("healthcheck" in service or name == "backend") and name != "dagster-daemon":
            wait_for(f"{name} to be healthy", lambda: compose.health(name) == "healthy")
    check = ("dagster-daemon", *compose.services["dagster-daemon"]["healthcheck"]["test"][1:])
    wait_for("the daemon to live", lambda: compose.exec(*check, check=False).returncode == 0)


def nothing_of_ours_may_do_more_than_it_needs(compose):
    for name in compose.services:
        if name in ("postgres", "first-build"):
            continue
        pid = compose.state(name)["Pid"]
        status = status_of(pid)
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, (name, status["CapEff"], status["CapBnd"])
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), name
        assert "0" not in status["Uid"].split(), name
        mounts = {line.split()[4]: line.split()[5].split(",") for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
        assert "ro" in mounts["/"], name
        for target, options in mounts.items():
            if target.endswith("/data/parquet"):
                assert ("rw" in options) == (name in WRITERS), (name, options)
            if target.endswith("/data/legacy"):
                assert "ro" in options, name
    refused = compose.exec("dagster-webserver", "touch", f"{PARQUET_DIR}/mart/x", check=False)
    assert "Read-only file system" in refused.stderr, refused.stderr


def the_state_is_martds_alone(compose):
    [mount] = [mount for mount in compose.inspect("martd")["Mounts"] if mount["Destination"] == "/var/lib/martd"]
    state = os.stat(mount["Source"])
    assert (state.st_mode & 0o777, state.st_uid) == (0o700, MARTD_USER), oct(state.st_mode)


def the_limit_of_the_container_is_seen(compose):
    [line] = [line for line in map(json.loads, filter(None, compose.logs("martd").splitlines())) if line["message"] == "limits"]
    assert line["memory"] == "2.0 GiB", line


def a_token_is_asked_for_and_the_gate_is_shut(compose):
    assert compose.martd("/v1/snapshot")[0] == 401
    assert compose.query("select 1", scope=None)[0] == 403, "a query says whose rows it wants"
    dagster = compose.settings["MARTD_DAGSTER_TOKEN"]
    assert compose.query("select 1", SOMEBODY, dagster)[0] == 403, "Dagster reads no rows"
    for sql in ("select * from read_parquet('/app/data/parquet/mart/dim_accounts.parquet')", "copy mart.dim_accounts to '/tmp/x'", "select 1; select 2"):
        assert compose.query(sql, SOMEBODY)[0] in (400, 403), sql


def a_user_sees_its_own_rows_through_the_backend(compose):
    assert compose.query("select 1", "*")[0] == 403, "the backend's token is for any one user"
    one, other, *_ = users = compose.users()
    rows = {}
    for user in users:
        status, answer = compose.query("select user_id, count(*) as n from mart.fct_transactions group by 1", f"user_id={user}")
        assert status == 200 and [row["user_id"] for row in answer["data"]] == [user], answer
        rows[user] = answer["data"][0]["n"]
    as_one = {"X-User-Id": one}
    assert ask(f"{BACKEND}/datasets")[0] == 401
    status, found = ask(f"{BACKEND}/status", as_one)
    assert status == 200 and found["duckdb_available"] and found["dataset_count"] == 11, found
    status, found = ask(f"{BACKEND}/datasets/fct_transactions/query?limit=10000", as_one)
    assert status == 200 and found["row_count"] == min(rows[one], 10000), found
    account = compose.query("select account_id from mart.dim_accounts limit 1", f"user_id={other}")[1]["data"][0]["account_id"]
    status, found = ask(f"{BACKEND}/datasets/fct_transactions/query?account_ids={account}", as_one)
    assert status == 404, found


def graphql(query, **variables):
    status, answer = ask(f"{DAGSTER}/graphql", body={"query": query, "variables": variables})
    assert status == 200, answer
    return answer["data"]


def launch():
    [entry] = graphql("{ workspaceOrError { ... on Workspace { locationEntries { name } } } }")["workspaceOrError"]["locationEntries"]
    launched = graphql(
        """mutation ($selector: JobOrPipelineSelector!) { launchRun(executionParams: {selector: $selector})
            { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
        selector={"repositoryLocationName": entry["name"], "repositoryName": "__repository__", "pipelineName": "build_marts"},
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return launched["run"]["runId"]


def run_status(run):
    return graphql("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run)["runOrError"]["status"]


def succeed(compose):
    """A run of Dagster's, to its end, and that martd serves what it made."""
    before = compose.snapshot()
    run = launch()
    ended = wait_for("the run to end", lambda: run_status(run) in ("SUCCESS", "FAILURE", "CANCELED") and run_status(run), 240)
    assert ended == "SUCCESS", ended
    after = compose.snapshot()
    assert after["build"] != before["build"] and not after["held"], after["held"]


def a_run_whose_daemon_was_killed_blocks_no_other(compose):
    run = launch()
    wait_for("the run to start", lambda: run_status(run) == "STARTED", 120)
    os.kill(compose.state("dagster-daemon")["Pid"], signal.SIGKILL)
    wait_for("the run to be reported", lambda: run_status(run) == "FAILURE", 120)
    succeed(compose)


def dagsters_pages_are_pictured(compose):
    """Into target/containers, for people to look at, where there is a browser."""
    browser = shutil.which("chromium")
    if browser is None:
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, path in {"assets": "asset-groups/", "runs": "runs"}.items():
        picture = PICTURES / f"dagster-{name}.png"
        picture.unlink(missing_ok=True)
        options = ["--headless", "--no-sandbox", "--window-size=1400,900", "--virtual-time-budget=20000"]
        compose.own.run(browser, *options, f"--screenshot={picture}", f"{DAGSTER}/{path}")
        assert picture.stat().st_size > 0, picture


def a_damaged_file_leaves_the_build_served(compose):
    before = compose.snapshot()
    (compose.tree / "data/parquet/mart/fct_transactions.parquet").write_bytes(b"PAR1 no, it is not PAR1")
    wait_for("its rejection", lambda: compose.snapshot()["rejected"], 60)
    assert compose.snapshot()["id"] == before["id"]
    assert ask(f"{BACKEND}/status", {"X-User-Id": NOBODY})[0] == 200


def same_after(compose, what):
    """What is done leads to a martd that serves the same build, out of its state directory: the files are damaged."""
    before, started = compose.snapshot()["id"], compose.state("martd")["StartedAt"]
    what()
    wait_for("martd to be started again", lambda: compose.state("martd")["Running"] and compose.state("martd")["StartedAt"] != started)
    wait_for("martd to be healthy", lambda: compose.health("martd") == "healthy")
    assert compose.snapshot()["id"] == before
    status, answer = compose.query("select count(*) as n from mart.fct_transactions", f"user_id={compose.users()[0]}")
    assert status == 200 and answer["data"][0]["n"] > 0, answer


def a_restart_keeps_the_state(compose):
    same_after(compose, lambda: compose("restart", "martd"))


def a_killed_martd_leaves_nothing_and_comes_back(compose):
    old = martd_processes()
    pid = compose.state("martd")["Pid"]
    assert pid in old and len(old) > 1
    same_after(compose, lambda: os.kill(pid, signal.SIGKILL))
    assert not set(old) & set(martd_processes())


def a_killed_engine_leaves_the_container_running(compose):
    state = compose.state("martd")
    engines = [pid for pid in martd_processes() if b"\0engine\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert engines, martd_processes()
    for pid in engines:
        os.kill(pid, signal.SIGKILL)
    status, answer = compose.query("select count(*) as n from mart.dim_accounts -- after", SOMEBODY)
    assert status == 200, answer
    assert compose.state("martd")["StartedAt"] == state["StartedAt"]


def without_martd_the_backend_says_so(compose):
    started = time.monotonic()
    compose("stop", "martd")
    took = time.monotonic() - started
    state = compose.state("martd")
    assert state["ExitCode"] == 0 and took < 30, (state, took)
    messages = [json.loads(line)["message"] for line in compose.logs("martd").splitlines()]
    last = messages[len(messages) - messages[::-1].index("stopping") :]
    assert len(last) == len(set(last)), f"a line is logged twice: {last}"
    user = {"X-User-Id": NOBODY}
    assert ask(f"{BACKEND}/datasets/fct_transactions/query", user)[0] == 503
    assert ask(f"{BACKEND}/health")[0] == 200
    compose("start", "martd")
    wait_for("martd to be healthy", lambda: compose.health("martd") == "healthy")


def the_next_build_heals_it(compose):
    succeed(compose)


def all_stop_in_time(compose):
    started = time.monotonic()
    compose("stop")
    took = time.monotonic() - started
    codes = {name: compose.state(name)["ExitCode"] for name in compose.services}
    assert not {name: code for name, code in codes.items() if code == 137}, f"killed, for they did not end: {codes}"
    assert codes["martd"] == codes["backend"] == codes["postgres"] == 0, codes
    assert took < 60, took
    assert not martd_processes()


def a_second_up_builds_nothing_and_serves_the_same(compose):
    builds = sorted((compose.tree / "data/parquet/mart/_builds").iterdir())
    compose("up", "-d", "--no-build")
    assert compose.logs("first-build").rstrip().endswith("there is a build already")
    assert sorted((compose.tree / "data/parquet/mart/_builds").iterdir()) == builds
    wait_for("the backend to be healthy", lambda: compose.health("backend") == "healthy")
    assert compose.query("select count(*) as n from mart.fct_transactions", SOMEBODY)[0] == 200


STEPS = [
    a_fresh_up_ends,
    each_starts_after_what_it_waits_for,
    all_become_healthy,
    nothing_of_ours_may_do_more_than_it_needs,
    the_state_is_martds_alone,
    the_limit_of_the_container_is_seen,
    a_token_is_asked_for_and_the_gate_is_shut,
    a_user_sees_its_own_rows_through_the_backend,
    a_run_whose_daemon_was_killed_blocks_no_other,
    dagsters_pages_are_pictured,
    a_damaged_file_leaves_the_build_served,
    a_restart_keeps_the_state,
    a_killed_martd_leaves_nothing_and_comes_back,
    a_killed_engine_leaves_the_container_running,
    without_martd_the_backend_says_so,
    the_next_build_heals_it,
    all_stop_in_time,
    a_second_up_builds_nothing_and_serves_the_same,
]


def run(cache, work):
    """How many failed. Without an up there is nothing to look at."""
    failed = 0
    with engine.Engine(cache, work, network=False) as own:
        compose = Compose(own, work / "tree")
        try:
            for step in STEPS:
                started = time.monotonic()
                try:
                    step(compose)
                    result = "ok"
                except Exception:
                    failed += 1
                    result = traceback.format_exc()
                print(f"{step.__name__} … {time.monotonic() - started:.1f} s … {result}", flush=True)
                if result != "ok":
                    print(compose("logs", "--tail=20").stdout, flush=True)
                    if step is STEPS[0]:
                        break
        finally:
            compose("down", "--volumes", "--timeout", "5")
    print(f"containers: {len(STEPS) - failed} passed, {failed} failed", flush=True)
    return failed
