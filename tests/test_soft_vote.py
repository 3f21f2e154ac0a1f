"""A soft vote as one model: the mean of its members' probabilities, whatever they are."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.complete_model import Trained, compose_complete, compose_vote
from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.family import Backbone
from pawtune.models.families.transfer import TransferSpec
from pawtune.search.results.delivery.inference import predict_files
from tests.networks import keyed, network_of

SPECS = (
    ConvSpec(image_size=32, filters=(8, 8), batch_norm=True),
    ConvSpec(image_size=40, filters=(4,), dense_width=8),
    TransferSpec(image_size=32, pooling="average"),
    TransferSpec(image_size=32, pooling="max", dense_width=16),
)


@pytest.mark.slow
def test_a_vote_is_the_mean_of_its_members_and_needs_nothing_of_ours(tmp_path: Path) -> None:
    backbone = load_backbone("MobileNetV2", 32, None)
    voters, members = [], []
    for number, spec in enumerate(SPECS):
        own = backbone if isinstance(spec, TransferSpec) else None
        core = network_of(spec, 3, seed=number, backbone=own).core
        voters.append(Trained(spec, core))
        members.append(compose_complete(spec, 3, core, keyed(spec, own)))
    vote = compose_vote(voters, 3, {Backbone("MobileNetV2", 32): backbone})
    vote.save(tmp_path / "vote.keras")
    loaded = keras.models.load_model(tmp_path / "vote.keras", compile=False, safe_mode=True)
    raw = np.random.default_rng(0).integers(0, 256, (3, 45, 61, 3), dtype=np.uint8)
    expected = np.mean([member.predict(raw, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(loaded.predict(raw, verbose=0), expected, atol=1e-5)
    # Two heads share one backbone: its weights are in the model once.
    heads = sum(voter.core.count_params() for voter in voters)
    assert vote.count_params() == backbone.count_params() + heads


def test_voters_of_several_sizes_get_each_image_as_it_is(tmp_path: Path) -> None:
    specs = SPECS[:2]  # 32 and 40 px
    cores = [network_of(spec, 3, seed=number).core for number, spec in enumerate(specs)]
    members = [compose_complete(spec, 3, core) for spec, core in zip(specs, cores, strict=True)]
    vote = compose_vote([Trained(*pair) for pair in zip(specs, cores, strict=True)], 3, {})
    rng = np.random.default_rng(0)
    paths = []
    for number, shape in enumerate([(45, 61, 3), (80, 40, 3), (45, 61, 3)]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(paths[-1])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    *found, broken = predict_files(vote, [*paths, tmp_path / "broken.png"], None)
    for path, prediction in zip(paths, found, strict=True):
        alone = [
            next(predict_files(member, [path], spec.image_size))
            for member, spec in zip(members, specs, strict=True)
        ]
        expected = np.mean([one.probabilities for one in alone], axis=0)
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
    assert broken.probabilities is None


def test_one_model_is_no_vote() -> None:
    core = network_of(SPECS[0], 3, seed=0).core
    with pytest.raises(ValueError, match="a vote needs two models or more, received 1"):
        compose_vote([Trained(SPECS[0], core)], 3, {})
