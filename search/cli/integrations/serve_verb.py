"""`pawtune serve`: a model behind HTTP."""

import socket
import sys
import threading
from typing import Annotated

import typer

from pawtune.search.cli.options import RunsDir

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    model: Annotated[
        str, typer.Argument(metavar="RUN|MODEL.keras", help="A run, for its best trial, or a file.")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Where to listen. Others than this machine need no password!")
    ] = "127.0.0.1",
    replicas: Annotated[int, typer.Option(min=1, help="Processes that predict.")] = 1,
    cpus: Annotated[float, typer.Option("--cpus-per-replica", help="CPUs of each.")] = 1.0,
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster, or auto.", show_default="this machine"),
    ] = None,
    runs_dir: RunsDir = "runs",
) -> None:
    """Serve a model over HTTP: POST the bytes of a JPEG or PNG to /predict; / has a page.

    Example: pawtune serve pets --port 8000
    """
    from pawtune.search.cluster.connection import connect
    from pawtune.search.errors import UserError
    from pawtune.search.integrations import serving
    from pawtune.search.integrations.records import load_extra

    load_extra("ray.serve", "serve")  # before a model is opened, which takes seconds
    if address is None and _is_taken(host, port):
        raise UserError(
            f"--port must be free, received {port}, where something listens; give another"
        )
    content, title = serving.read_model(model, runs_dir)
    if host not in LOOPBACK:
        print(f"warning: whoever reaches {host}:{port} may use this model", file=sys.stderr)
    stopping = threading.Event()

    def say(line: str) -> None:
        if not stopping.is_set():  # of the end of Serve's own actors nobody needs to hear
            print(line, file=sys.stderr)

    connect(address, say)
    with serving.served(content, title, host=host, port=port, replicas=replicas, cpus=cpus) as url:
        print(f"{title}: {url} (Ctrl-C ends it)", flush=True)
        print(f"  curl --data-binary @photo.jpg {url}/predict", flush=True)
        serving.wait_for_ctrl_c(say)
        stopping.set()


def _is_taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
