"""The benchmark of very many trials runs from its command line to its JSON."""

from pathlib import Path

import pytest

from tests.test_benchmarks import benchmark


@pytest.mark.slow
def test_scale_without_workers(tmp_path: Path) -> None:
    report = benchmark("scale", tmp_path, "--trials=30", "--workers=4", "--simulate")
    assert [block["trials"] for block in report["blocks"]] == list(range(3, 31, 3))
    assert report["whole"]["driver s/trial"] > 0
    for block in report["blocks"]:
        assert float(block["proposals and study"]) > float(block["early stopping"])


@pytest.mark.slow
def test_scale_with_tune(tmp_path: Path) -> None:
    report = benchmark("scale", tmp_path, "--trials=10", "--workers=2", "--trial-s=0.2")
    assert report["blocks"][-1]["trials"] == 10
    assert report["whole"]["study MB"] > 0
