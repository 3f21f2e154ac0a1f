"""`pawtune serve`: a model of a run, or a delivered file, behind HTTP until Ctrl-C."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pawtune.data_pipeline.safe_files import expanded
from pawtune.search.errors import UserError
from pawtune.search.integrations.records import load_extra
from pawtune.search.results.delivery.opened import is_model_path
from pawtune.search.run import open_run

REQUEST_TIMEOUT_S = 30.0


def read_model(name: str, runs_dir: str) -> tuple[bytes, str]:
    """The bytes of a `.keras` file, and what to call it.

    Args:
        name: A file, or a run, of which the best trial is taken.
        runs_dir: Where runs are kept.

    Raises:
        UserError: There is neither, or the file is of another format.
    """
    path = expanded(name)
    if is_model_path(path) and path.exists():
        if path.suffix != ".keras":
            raise UserError(
                f"a served model must be a .keras file or a run, received {name!r}; write one with "
                "`pawtune best RUN --out best.keras`"
            )
        return path.read_bytes(), path.stem
    run = open_run(name, runs_dir)
    with tempfile.TemporaryDirectory() as folder:
        choice, file = run.save_best(Path(folder) / "best.keras")
        return file.read_bytes(), f"{run.name}: {choice.title}"


@contextmanager
def served(
    content: bytes, title: str, *, host: str, port: int, replicas: int, cpus: float
) -> Iterator[str]:
    """Serves a model for the time of a block, on the Ray cluster that is connected.

    Yields:
        Its address.

    Raises:
        UserError: Ray Serve is not installed, or the port is in use.
    """
    serve: Any = load_extra("ray.serve", "serve")
    from pawtune.search.integrations.serve_app import deploy

    options = {"host": host, "port": port, "request_timeout_s": REQUEST_TIMEOUT_S}
    serve.start(http_options=options)
    try:
        serve.run(deploy(content, title, replicas=replicas, cpus=cpus), name="pawtune")
        yield f"http://{host}:{port}"
    finally:
        serve.shutdown()


def wait_for_ctrl_c(say: Callable[[str], None]) -> None:
    """Sleeps until Ctrl-C."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        say("stopping")
