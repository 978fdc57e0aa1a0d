"""Starts dagster-daemon where it alone runs anything: what an earlier one left unfinished is reported as failed first.

Runs are children of the daemon, and end with it, but stay STARTED in its storage. One run at a time is let through, so each of
them would block all later builds.
"""

import os
import sys

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def report_interrupted(instance):
    runs = instance.get_runs(RunsFilter(statuses=UNFINISHED))
    for run in runs:
        instance.report_run_failed(run, "The daemon that ran this ended before it was done: start it again.")
    return [run.run_id for run in runs]


if __name__ == "__main__":
    with DagsterInstance.get() as instance:
        for run_id in report_interrupted(instance):
            print(f"the run {run_id} was interrupted: it is reported as failed", flush=True)
    os.execvp("dagster-daemon", ["dagster-daemon", "run", *sys.argv[1:]])
