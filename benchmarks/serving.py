"""Requests a second and latency of `pawtune serve`, against one process that predicts one by one.

    pawtune best RUN --out best.keras
    python benchmarks/serving.py best.keras PHOTOS --requests 400 --clients 16

The process answers the same HTTP requests with the same decoding and the same model, one after the
other, as a server that somebody writes in ten minutes does. Needs the extra `serve`.
"""

import argparse
import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from measuring import machine, print_table, write_report

from pawtune.data_pipeline.images.decode import open_image, resize
from pawtune.search.cluster.connection import connect
from pawtune.search.integrations.serving import served
from pawtune.search.results.delivery.opened import OpenedModel, open_delivered

WARM_UP = 32  # requests


def measure(url: str, bodies: list[bytes], requests: int, clients: int) -> dict[str, float]:
    """Sends requests, so many at a time, and times each."""

    def ask(number: int) -> float:
        began = time.perf_counter()
        body = bodies[number % len(bodies)]
        with urllib.request.urlopen(f"{url}/predict", body, timeout=120) as reply:
            assert json.load(reply)["label"]
        return time.perf_counter() - began

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, range(WARM_UP)))
        began = time.perf_counter()
        seconds = list(threads.map(ask, range(requests)))
        whole = time.perf_counter() - began
    p50, p99 = np.percentile(seconds, [50, 99])
    return {
        "requests_per_s": round(requests / whole, 1),
        "p50_ms": round(1000 * float(p50), 1),
        "p99_ms": round(1000 * float(p99), 1),
    }


@contextmanager
def one_by_one(model: OpenedModel) -> Iterator[str]:
    """A server on this process: a request decodes and predicts by itself, one at a time."""
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with turn:
                pixels = np.asarray(open_image(body, model.decoding.grey_bits))
                if model.image_size:
                    pixels = resize(pixels, model.image_size, model.decoding.resizing)
                probabilities = model.predict(pixels[None])[0]
            label = model.class_names[int(np.argmax(probabilities))]
            content = json.dumps({"label": label}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: it would be timed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def main() -> None:
    """Prints a table, and writes the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--cpus", type=float, default=float(os.cpu_count() or 1))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    files = [f for f in sorted(options.photos.rglob("*")) if f.suffix in (".jpg", ".jpeg", ".png")]
    bodies = [file.read_bytes() for file in files[:64]]
    report = {"machine": machine(), "clients": options.clients, "requests": options.requests}
    load = (bodies, options.requests, options.clients)
    with one_by_one(open_delivered(options.model)) as url:
        rows = [{"server": "one by one", **measure(url, *load)}]
    connect("local", lambda line: None)
    content = options.model.read_bytes()
    where = {"host": "127.0.0.1", "port": options.port}
    with served(content, "benchmark", **where, replicas=1, cpus=options.cpus) as url:
        rows.append({"server": "pawtune serve", **measure(url, *load)})
    print_table(rows)
    write_report(options.out, {**report, "rows": rows})


if __name__ == "__main__":
    main()
