"""Where weights are looked for, and how soon and how well a failure is told."""

import socket
import time
from pathlib import Path
from typing import Any

import keras
import pytest
from typer.testing import CliRunner

from pawtune.models.backbones import backbone_weights as weights
from pawtune.models.backbones.backbone_weights import (
    BACKBONES,
    cached_weights,
    find_weights,
    map_weights,
    weights_by_backbone,
    weights_ending,
    weights_file_name,
)
from pawtune.models.errors import ModelError
from pawtune.search.cli.app import app
from tests.board import free_port


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "keras"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host of the weights refuses connections: a port that was free a moment ago."""
    monkeypatch.setattr(weights, "WEIGHTS_HOST", ("127.0.0.1", free_port()))


def test_every_backbone_of_keras_is_known() -> None:
    assert set(BACKBONES) == {name for name in dir(keras.applications) if name[0].isupper()}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("MobileNetV2", 160),
        ("MobileNetV2", 100),
        ("MobileNet", 96),
        ("MobileNet", 128),
        ("MobileNetV3Small", 64),
        ("EfficientNetB0", 64),
        pytest.param("EfficientNetV2B0", 64, marks=pytest.mark.slow),
        ("ResNet50V2", 64),
        ("VGG16", 64),
        ("ConvNeXtTiny", 64),
        pytest.param("NASNetMobile", 64, marks=pytest.mark.slow),
        pytest.param("DenseNet121", 64, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:.input_shape. is undefined or non-square:UserWarning")
def test_files_have_the_names_that_keras_asks_for(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AskedFor(Exception):
        pass

    def get_file(file_name: str, *args: object, **options: object) -> None:
        raise AskedFor(file_name)

    # Keras' download itself: nothing of ours is replaced.
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    with pytest.raises(AskedFor) as asked:
        getattr(keras.applications, name)(
            include_top=False, weights="imagenet", input_shape=(size, size, 3)
        )
    assert str(asked.value) == weights_file_name(name, size)


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights as Keras saves them, in its old format and its new one, and those of others."""
    folder = tmp_path_factory.mktemp("weights")
    make = keras.applications.MobileNetV2
    size: dict[str, Any] = {"input_shape": (96, 96, 3), "weights": None}
    net = make(include_top=False, **size)
    net.save_weights(folder / "new.weights.h5")
    net.save(folder / "old.h5")
    net.save(folder / "whole.keras")
    make(include_top=True, **size).save_weights(folder / "top.weights.h5")
    make(include_top=False, alpha=0.35, **size).save_weights(folder / "narrow.weights.h5")
    (folder / "short.h5").write_bytes((folder / "old.h5").read_bytes()[:-4096])
    (folder / "page.h5").write_text("<!DOCTYPE html><title>404: not found</title>")
    (folder / "empty.h5").touch()
    (folder / "folder.h5").mkdir()
    return {file.name.split(".")[0]: file for file in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:.*HDF5 file.*")
def test_a_given_file_is_taken_and_a_wrong_one_refused(own_weights: dict[str, Path]) -> None:
    for good in ("new", "old"):
        assert find_weights("mobilenetv2", 160, own_weights[good]) == own_weights[good]
    assert weights_ending(own_weights["new"]) == ".weights.h5"
    assert weights_ending(own_weights["old"]) == ".h5"
    for bad, reason in {
        "whole": "cannot be read as HDF5",
        "top": "3,538,984 weights, not 2,257,984",
        "narrow": "410,208 weights, not 2,257,984",
        "short": "cannot be read as HDF5 .*truncated",
        "page": "cannot be read as HDF5",
        "empty": "cannot be read as HDF5",
        "folder": "weights must be a file",
    }.items():
        began = time.monotonic()
        with pytest.raises(ModelError, match=reason):
            find_weights("MobileNetV2", 160, own_weights[bad])
        assert time.monotonic() - began < 2
    with pytest.raises(ModelError, match="they are MobileNetV2's; give the .h5 .* for VGG16"):
        find_weights("VGG16", 160, own_weights["old"])


def test_each_backbone_may_have_its_file(own_weights: dict[str, Path], tmp_path: Path) -> None:
    path = own_weights["new"]
    both = ["--backbones", "mobilenetv2,VGG16"]
    image = tmp_path / "data" / "cat"
    image.mkdir(parents=True)
    for options, reason in {
        (f"mobilenetV2={path},VGG166={path}", *both): "received 'VGG166'; did you mean 'VGG16'",
        (f"MobileNetV2={path},VGG16={path}", *both): "for VGG16, or leave it out",
        (f"MobileNetV2={path},MobileNetV2=a", *both): "after another for it; give MobileNetV2=PATH",
        (f"MobileNetV2={path},VGG16=", *both): "received 'VGG16='; give VGG16=PATH once",
        (str(path), *both): "give --weights MobileNetV2=PATH,VGG16=PATH, or only those",
        (f"VGG16={path}",): "received VGG16's; the search has MobileNetV2: add it to --backbones",
        (str(path), "--backbones", "MobilNetV2"): "did you mean 'MobileNetV2'",
    }.items():
        command = ["run", "--dry-run", "--data", str(image.parent), "--families", "transfer"]
        result = CliRunner().invoke(app, [*command, "--weights", *options])
        said = " ".join(str(result.exception or result.output).split())
        assert result.exit_code, said
        assert reason in said
    given = f"mobilenetv2={path},VGG16=s3://bucket/b.h5?x=1"
    places = {"MobileNetV2": str(path), "VGG16": "s3://bucket/b.h5?x=1"}
    assert weights_by_backbone(given) == places
    assert weights_by_backbone("some,file.h5") == {"": "some,file.h5"}
    assert map_weights("VGG16=b", str.upper) == "VGG16=B"


@pytest.mark.parametrize("name", ["MobileNetV2", pytest.param("ResNet50", marks=pytest.mark.slow)])
def test_the_numbers_of_weights_are_kerass(name: str) -> None:
    net = getattr(keras.applications, name)(include_top=False, weights=None)
    assert net.count_params() == weights.NUM_WEIGHTS[name]
    assert net.output_shape[-1] == weights.NUM_FEATURES[name]
    assert set(weights.NUM_WEIGHTS) == set(BACKBONES)


def test_a_given_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.h5 is none: give the path of MobileNetV2's"):
        find_weights("MobileNetV2", 160, tmp_path / "none.h5")


def test_kerass_cache_is_searched_and_checked(
    keras_home: Path, offline: None, own_weights: dict[str, Path]
) -> None:
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_160_no_top.h5"
    file = keras_home / "models" / name
    file.touch()
    with pytest.raises(ModelError, match="cannot be read as HDF5 .*delete a damaged one"):
        find_weights("mobilenetv2", 160)
    file.write_bytes(own_weights["old"].read_bytes())
    assert find_weights("mobilenetv2", 160) == file
    assert cached_weights("MobileNetV2", 192) is None


def test_being_offline_is_noticed_soon_and_told_with_a_remedy(
    keras_home: Path, offline: None
) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"cannot be reached .*: give a file with --weights PATH"):
        find_weights("MobileNetV2", 160)
    assert time.monotonic() - start < 60  # Keras' own download would try for minutes


def test_an_unknown_backbone_is_refused_before_anything_is_tried(offline: None) -> None:
    with pytest.raises(ModelError, match="did you mean 'Xception'"):
        find_weights("Xceptoin", 160)


def test_a_download_that_fails_is_reported_and_leaves_this_process_alone(
    keras_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # something answers; then nothing does
        monkeypatch.setattr(weights, "WEIGHTS_HOST", server.getsockname())
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        with pytest.raises(ModelError, match=r"could not be downloaded \(.*\): give a file with"):
            find_weights("MobileNetV2", 160)
