"""Memory and time of `pawtune predict` over many small images.

    python benchmarks/predict_memory.py            # 1,000 and 10,000 images; a minute or two

Writes generated 96 x 96 px JPEGs and a model like tutorial_1 at 96 px (not trained), labels them
with `pawtune predict --out labels.csv` in a process of its own, and reads that process's highest
resident memory. Were memory to grow with the number of images, ten times as many would show it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = (1_000, 10_000)
SIDE_PX = 96


def main() -> None:
    """Prints a line for each number of images."""
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.keras"
        write_model(model)
        for count in COUNTS:
            folder = write_images(Path(scratch) / str(count), count)
            seconds, megabytes, said = predict(model, folder)
            print(f"{said}; {seconds:.0f} s, at most {megabytes:,.0f} MB resident")


def write_model(out: Path) -> None:
    """A complete model with its card, as `pawtune best` writes one."""
    from pawtune.models.complete_model import compose_complete
    from pawtune.models.families.conv import CONV, ConvSpec
    from pawtune.search.results.delivery.model_file import save_complete

    spec = ConvSpec(filters=(32, 32), image_size=SIDE_PX)
    core = CONV.build_core(spec, 2, {})
    card = json.loads(CARD) | {"spec": {"model": spec.model_dump(mode="json"), "train": {}}}
    save_complete(compose_complete(spec, 2, core), card, out)


CARD = """{"run": "none", "class_names": ["cat", "dog"], "data_fingerprint": "", "metric": "",
"trial": {"name": "t", "trial_id": "0001", "best_epoch": 1, "epochs": 1}, "test": null,
"validation": {"images": 0, "accuracy": 0.0, "interval_95": null, "corrected_accuracy": null},
"counts": {}, "hardware": {}, "versions": {}, "search_versions": {}, "command": "",
"search_command": "", "model": "trial", "title": "t", "record": {}}"""


def write_images(folder: Path, count: int) -> Path:
    """Noise in class-less files; one in a thousand is cut short."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((SIDE_PX, SIDE_PX))
        path = folder / f"{number:05d}.jpg"
        image.save(path)
        if number % 1000 == 7:
            path.write_bytes(path.read_bytes()[:500])
    return folder


def predict(model: Path, folder: Path) -> tuple[float, float, str]:
    """Seconds, highest resident megabytes and last line of a `pawtune predict`."""
    out = folder.with_suffix(".csv")
    command = [
        sys.executable,
        "-m",
        "pawtune",
        "predict",
        str(model),
        str(folder),
        "--out",
        str(out),
    ]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stderr=told, cwd=Path(__file__).parent.parent)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        said = told.read().decode().strip().splitlines()[-1]
    assert process.returncode == 0, said
    lines = len(out.read_text().splitlines())
    assert lines == 1 + len(os.listdir(folder)), lines
    return time.perf_counter() - started, usage.ru_maxrss / 1024, said


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
