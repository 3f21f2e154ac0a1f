"""A model behind HTTP on Ray Serve: bytes of a JPEG or PNG in, labels and probabilities out.

No address is ever fetched: a server that fetches what its clients name opens the network that it
stands in. Needs the extra `serve`.
"""

import asyncio
import base64
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from ray import serve

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import open_image, resize
from pawtune.search.integrations.records import load_extra
from pawtune.search.results.delivery.inference import Pixels, predict_pixels
from pawtune.search.results.delivery.opened import open_delivered

TEMPLATES = Path(__file__).parent / "templates"
MAX_BODY_BYTES = 20 * 2**20
MAX_BATCH = 32
BATCH_WAIT_S = 0.004  # a lone request waits this long for company
MAX_ONGOING = 128  # requests in one replica
MAX_QUEUED = 512  # beyond these a request is refused at once, with 503
KINDS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}


class Refusal(ValueError):
    """A request that cannot be answered, with its HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Classifier:
    """One replica: decodes on threads, and predicts what has come together in one call.

    Args:
        content: Bytes of a `.keras` file, so that no node needs to see the driver's disk.
        title: Title of the model, for the page.
        threads: Number of TensorFlow's threads.
    """

    def __init__(self, content: bytes, title: str, threads: int = 1) -> None:
        from pawtune.models.precision import limit_threads

        limit_threads(threads)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(content)
            self._model = open_delivered(path)
        self._title = title
        self._responses = load_extra("starlette.responses", "serve")
        self._page, self._policy = render_page(title, self._model.class_names)
        side = self._model.image_size or 224
        for size in (1, 2, 4, 8, 16, 32):  # TensorFlow traces each size of batch once
            self._model.predict(np.zeros((size, side, side, 3), np.uint8))

    async def __call__(self, request: Any) -> Any:
        """Answers one request."""
        try:
            return await self._answer(request.method, request.url.path, request)
        except Refusal as refusal:
            return self._json({"error": str(refusal)}, refusal.status)

    async def _answer(self, method: str, path: str, request: Any) -> Any:
        if path == "/predict":
            if method != "POST":
                raise Refusal(405, "send the image as the body of a POST")
            return self._json(await self.classify(await read_body(request)))
        if method not in ("GET", "HEAD"):
            raise Refusal(405, f"{path} is read with GET")
        if path == "/health":
            return self._json({"status": "ok", "model": self._title})
        if path == "/labels":
            return self._json({"labels": list(self._model.class_names)})
        if path == "/":
            headers = {"Content-Security-Policy": self._policy, "X-Frame-Options": "DENY"}
            return self._responses.HTMLResponse(self._page, headers=headers)
        raise Refusal(404, "there are /, /predict, /labels and /health")

    def _json(self, content: Mapping[str, Any], status: int = 200) -> Any:
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return self._responses.JSONResponse(content, status_code=status, headers=headers)

    async def classify(self, body: bytes) -> dict[str, Any]:
        """Label, confidence and all probabilities of one image.

        Raises:
            Refusal: The bytes are no image that can be read.
        """
        if not body.startswith(tuple(KINDS)):
            raise Refusal(415, f"the body must be the bytes of a {' or '.join(KINDS.values())}")
        try:
            pixels = await asyncio.to_thread(self._decode, body)
        except DataError as error:
            raise Refusal(422, str(error)) from error
        probabilities = await self.predict(pixels)
        best = int(np.argmax(probabilities))
        names = self._model.class_names
        return {
            "label": names[best],
            "confidence": float(probabilities[best]),
            "probabilities": {n: float(p) for n, p in zip(names, probabilities, strict=True)},
        }

    def _decode(self, body: bytes) -> Pixels:
        pixels = np.asarray(open_image(body, self._model.decoding.grey_bits))
        size = self._model.image_size
        return resize(pixels, size, self._model.decoding.resizing) if size else pixels

    @serve.batch(  # type: ignore[untyped-decorator]  # Ray is untyped
        max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S
    )
    async def predict(self, images: list[Pixels]) -> list[NDArray[np.float32]]:
        """Probabilities of the images that have come together, (C,) each."""
        found = await asyncio.to_thread(predict_pixels, self._model.predict, images)
        return list(found)


async def read_body(request: Any) -> bytes:
    """The body, read no further than its limit.

    Raises:
        Refusal: It is larger.
    """
    too_large = Refusal(413, f"an image may take {MAX_BODY_BYTES // 2**20} MB at most")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


def render_page(title: str, class_names: tuple[str, ...]) -> tuple[str, str]:
    """The page where one drops a picture, and the policy under which a browser shows it."""
    script = (TEMPLATES / "drop.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("drop.html.j2").render(
        title=title, class_names=class_names, script=script
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src blob:; connect-src 'self'; frame-ancestors 'none'; form-action 'none'"
    )
    return page, policy


def deploy(content: bytes, title: str, *, replicas: int = 1, cpus: float = 1.0) -> Any:
    """The application, to be handed to `ray.serve.run`."""
    deployment = serve.deployment(
        Classifier,
        name="classifier",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
    )
    return deployment.bind(content, title, max(1, int(cpus)))


def application(args: dict[str, str]) -> Any:
    """The application for a Serve configuration, as in docs/rayservice.yaml.

    Args:
        args: `model`, the path of a `.keras` file that the head sees.
    """
    path = Path(args["model"])
    return deploy(path.read_bytes(), path.stem, replicas=int(args.get("replicas", 1)))
