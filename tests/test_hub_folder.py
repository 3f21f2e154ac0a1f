"""A folder for a model hub: its card as the Hub reads it, its data as Croissant's library does."""

import json
from pathlib import Path

import pytest

from pawtune.search.integrations.croissant import describe_data
from pawtune.search.results.delivery.front_matter import front_matter
from pawtune.search.results.delivery.model_card import make_card
from pawtune.search.run import Run, open_run
from tests.command_line import pawtune
from tests.run_folders import RunMaker, make_images
from tests.tiny_run import search_tiny

LICENSE = "https://creativecommons.org/licenses/by/4.0/"


@pytest.fixture
def made(tmp_path: Path) -> RunMaker:
    maker = RunMaker(tmp_path / "runs", make_images(tmp_path / "images", ["cat, big", "dog"]))
    maker.proposals(3, families=("transfer",))
    maker.finish()
    return maker


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of rdflib
def test_croissants_library_accepts_and_reads_the_manifest(made: RunMaker) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    file = made.folder.root / "croissant.json"
    file.write_text(json.dumps(describe_data(Run(made.folder), LICENSE)))
    dataset = mlcroissant.Dataset(jsonld=file)
    assert dataset.metadata.ctx.issues.errors == set()
    records = list(dataset.records("images"))
    entries = [entry for split in ("train", "validation", "test")
               for entry in made.manifest.entries if entry.split == split]  # fmt: skip
    assert len(records) == len(entries)
    told = {record["images/path"].decode(): record["images/split"].decode() for record in records}
    assert told == {entry.path: entry.split for entry in entries}
    labels = {record["images/label"].decode() for record in records}
    assert labels == {"cat, big", "dog"}


def test_the_hub_reads_the_card(made: RunMaker) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    run = Run(made.folder)
    card = make_card(made.folder, run.rows(), run.choose(), made.manifest, "val_accuracy")
    read = hub.ModelCard(front_matter(card) + "# Model card\n")
    assert read.data.library_name == "keras"
    assert read.data.license == "apache-2.0", "of MobileNetV2's weights"
    (result,) = read.data.eval_results
    assert result.metric_type == "accuracy"
    assert result.dataset_split == "validation", "nobody has looked at the test split"
    assert result.metric_value == pytest.approx(card["validation"]["corrected_accuracy"], abs=1e-6)
    assert "95% interval" in result.metric_name


@pytest.mark.slow
def test_the_folder_is_complete(
    tiny_images: Path, tmp_path: Path, ray_cluster: object, capsys: pytest.CaptureFixture[str]
) -> None:
    run = search_tiny(tiny_images, tmp_path / "runs")
    out = tmp_path / "hub"
    written = pawtune(capsys, "card", run.folder.root, "--out", out, "--json")
    assert written.code == 0, written.err
    assert written.json["files"] == [
        "README.md", "croissant.json", "manifest.csv", "model.keras", "model_card.json",
    ]  # fmt: skip
    assert (out / "README.md").read_text().startswith("---\nlibrary_name: keras\n")
    predicted = pawtune(capsys, "predict", out / "model.keras", tiny_images / "red", "--json")
    assert predicted.code == 0, predicted.err
    assert len(predicted.json) == 40
    again = pawtune(capsys, "card", run.folder.root, "--out", out)
    assert again.code == 2
    assert "--out must be a new folder" in again.err
    assert open_run(run.folder.root).name == "tiny"
