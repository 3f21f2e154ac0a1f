"""What the verbs about searches on a cluster share: options, and the commands they suggest."""

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pawtune.search.cli.output import print_json

if TYPE_CHECKING:
    from pawtune.search.jobs.ray_jobs import Job

Address = Annotated[
    str | None,
    typer.Option(
        help="URL of the cluster's dashboard; default: $RAY_API_SERVER_ADDRESS, else this machine."
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Continue without a token on an address elsewhere.")
]


def times(job: "Job") -> str:
    """When a job began, and for how long it has run."""
    if job.started is None:
        return "not started"
    from pawtune.search.progress.run_list import local_time

    return f"{local_time(job.started)}, {(job.ended or time.time()) - job.started:.0f} s"


def print_next(
    address: str | None,
    insecure: bool,
    *ways: tuple[str, ...],
    job_id: str,
    to_stderr: bool = False,
) -> None:
    """Prints commands about a job: each a verb and its options."""
    for verb, *options in ways:
        words = " ".join(["pawtune", verb, job_id, *options])
        print(f"  {words}{where(address, insecure)}", file=sys.stderr if to_stderr else sys.stdout)


def where(address: str | None, insecure: bool) -> str:
    """The options that name the same cluster again; a password in an address is left out."""
    from pawtune.data_pipeline.url_credentials import without_secrets

    named = f" --address {shlex.quote(without_secrets(address))}" if address else ""
    return named + (" --insecure" if insecure else "")


def print_submitted(
    how: str, job: "Job", address: str | None, insecure: bool, as_json: bool
) -> None:
    """Prints a job that was handed to a cluster; `how`: "submitted" or "continues"."""
    if as_json:
        print_json(job)
        return
    print(f"{how} as job {job.job_id}; run folder on the cluster: {job.folder}. Next:")
    print_next(address, insecure, ("logs", "-f"), ("status",), ("stop",), job_id=job.job_id)
