"""A model behind Ray Serve: a real server on loopback, its refusals, and its page in a browser."""

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed: no Ray Serve")

from pawtune.search.run import Run
from tests.board import free_port
from tests.browser import run_browser
from tests.command_line import begun, pawtune
from tests.tiny_run import search_tiny
from tests.waiting import wait_until

with warnings.catch_warnings():  # Ray Serve's own code, on pydantic and FastAPI of today
    warnings.simplefilter("ignore")
    from pawtune.search.integrations import serve_app

SERVICE = Path(__file__).resolve().parent.parent / "docs" / "rayservice.yaml"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve's own code


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path, ray_cluster: object) -> Run:
    return search_tiny(tiny_images, tmp_path_factory.mktemp("served") / "runs")


@pytest.fixture(scope="module")
def url(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`pawtune serve` in a process of its own, as people start it; Ctrl-C ends it in order."""
    port = free_port()
    log = tmp_path_factory.mktemp("log") / "log"
    words = ("serve", tiny.folder.root, "--port", port)
    with log.open("w") as stream, begun(*words, stdout=stream, stderr=stream) as server:
        ready = "Ctrl-C ends it"
        wait_until(lambda: ready in log.read_text(), 240, process=server, failure=log.read_text)
        yield f"http://127.0.0.1:{port}"
        server.send_signal(signal.SIGINT)
        assert server.wait(90) == 0, log.read_text()


def ask(url: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and answer, JSON or text."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as reply:
            status, content = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    try:
        return status, json.loads(content)
    except ValueError:
        return status, content.decode()


def encoded(kind: str = "JPEG", size: tuple[int, int] = (48, 40), seed: int = 0) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.mark.slow
def test_it_answers_as_predict_does(url: str, tiny: Run, tiny_images: Path) -> None:
    files = sorted(tiny_images.glob("*/*"))[::8]
    expected = tiny.predict(files)
    with ThreadPoolExecutor(8) as threads:  # at once: they share batches
        answers = list(threads.map(lambda file: ask(f"{url}/predict", file.read_bytes()), files))
    assert [status for status, _ in answers] == [200] * len(files)
    assert [told["label"] for _, told in answers] == expected["label"].tolist()
    shares = [told["probabilities"]["red"] for _, told in answers]
    assert shares == pytest.approx(expected["probability.red"].tolist(), abs=1e-4)


@pytest.mark.slow
def test_health_and_labels(url: str) -> None:
    status, told = ask(f"{url}/health")
    assert (status, told["status"]) == (200, "ok")
    assert ask(f"{url}/labels") == (200, {"labels": ["blue", "red"]})


@pytest.mark.slow
def test_what_it_refuses_and_how(url: str) -> None:
    predict = f"{url}/predict"
    assert ask(predict, encoded("PNG"))[0] == 200
    assert ask(predict, b"http://example.com/photo.jpg")[0] == 415, "no address is fetched"
    assert ask(predict, encoded("GIF"))[0] == 415
    assert ask(predict, encoded()[:200])[0] == 422
    assert declared(url, serve_app.MAX_BODY_BYTES + 1) == 413, "before a byte of it is read"
    assert ask(predict) == (405, {"error": "send the image as the body of a POST"})
    assert ask(f"{url}/etc/passwd")[0] == 404
    assert ask(f"{url}/health", b"x")[0] == 405
    assert ask(f"{url}/health")[0] == 200, "and continues answering"


def declared(url: str, size: int) -> int:
    """The answer to a body of so many bytes, of which none is sent."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.slow
@pytest.mark.parametrize("hand_over", ["drop", "choose"])
def test_the_page_classifies_a_picture(url: str, tmp_path: Path, hand_over: str) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(encoded("PNG"))
    with run_browser() as browser:
        browser.open(url)
        if hand_over == "drop":
            place = browser.evaluate(
                "document.getElementById('drop').getBoundingClientRect().toJSON()"
            )
            at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
            data = {"items": [], "files": [str(picture)], "dragOperationsMask": 1}
            for kind in ("dragEnter", "dragOver", "drop"):
                browser.call("Input.dispatchDragEvent", type=kind, data=data, **at)
        else:
            document = browser.call("DOM.getDocument")["root"]["nodeId"]
            node = browser.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
            browser.call("DOM.setFileInputFiles", files=[str(picture)], nodeId=node)
        browser.wait("document.querySelectorAll('#answer tr').length === 2")
        rows = "[...document.querySelectorAll('#answer tr')].map((r) => r.innerText)"
        told = browser.evaluate(rows)
        assert all("%" in row for row in told)
        assert {row.split()[0] for row in told} == {"blue", "red"}
        assert browser.complaints == []
        assert all(asked.startswith((url, "blob:")) for asked in browser.requests)


def test_a_port_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = pawtune(capsys, "serve", "pets", "--port", port)
    assert told.code == 2
    assert f"--port must be free, received {port}" in told.err


def test_the_manifest_is_what_ray_serve_takes(tiny: Run, tmp_path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    manifest = yaml.safe_load(SERVICE.read_text(encoding="utf-8"))
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    assert getattr(sys.modules[module], name) is serve_app.application
    _, path = tiny.save_best(tmp_path / "best.keras")
    built = serve_app.application({**application.args, "model": str(path)})
    assert built._bound_deployment.num_replicas == 2


@pytest.mark.slow
def test_the_benchmark_runs(tiny: Run, tiny_images: Path, tmp_path: Path) -> None:
    _, model = tiny.save_best(tmp_path / "best.keras")
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "serving.py"
    options = ["--requests=16", "--clients=4", "--cpus=1", f"--port={free_port()}"]
    out = tmp_path / "out.json"
    command = [sys.executable, script, model, tiny_images, *options, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["server"] for row in rows] == ["one by one", "pawtune serve"]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows)
