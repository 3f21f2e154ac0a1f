"""The search space: every proposal is a valid spec, and specs find their way back."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawtune.models.baselines import BASELINES, baseline
from pawtune.models.families.conv import CONV, ConvSpec, block_widths
from pawtune.models.families.table import find_family
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.search.config.search_config import SearchConfig, load_config
from pawtune.search.sampling import space

FAMILIES = ("conv", "transfer")


def config(*overrides: str) -> SearchConfig:
    return load_config(None, overrides, {"data": "sample"})


def proposals(search: SearchConfig, count: int, seed: int = 0) -> list[space.Params]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.propose(study.ask(), search, FAMILIES) for _ in range(count)]


@pytest.mark.parametrize(
    ("filters", "growth", "depth", "expected"),
    [
        (32, 1.0, 3, (32, 32, 32)),
        (32, 1.5, 3, (32, 32, 64)),
        (32, 1.5, 5, (32, 32, 64, 64, 128)),
        (16, 2.0, 5, (16, 32, 64, 128, 256)),
    ],
)
def test_block_widths(filters: int, growth: float, depth: int, expected: tuple[int, ...]) -> None:
    assert block_widths(filters, growth, depth) == expected


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_params_survive_the_way_to_a_spec_and_back(seed: int) -> None:
    search = config()
    for params in proposals(search, 10, seed):
        try:
            spec = space.to_spec(params, search, "name", seed=0)
        except ValueError:  # an image that shrinks to nothing: refused by rule
            continue
        back = space.to_params(spec)
        assert back is not None
        again = space.to_spec(back, search, "other", seed=1)
        assert space.identity(again) == space.identity(spec)
        assert space.locate(back, search, FAMILIES) is not None


@pytest.mark.parametrize(
    ("image_size", "depth", "padding", "share"),
    [(96, 3, "same", 0.5), (48, 3, "same", 0.0), (64, 5, "same", 0.5), (100, 5, "valid", 0.0)],
)
def test_only_nets_that_take_half_the_side_are_trained_on_it(
    image_size: int, depth: int, padding: str, share: float
) -> None:
    chosen = {
        "half_size_share": 0.5,
        "conv_depth": depth,
        "padding": padding,
        "image_size": image_size,
    }
    model, train = CONV.to_spec({**CONV.portfolio[0], **chosen}, TrainSpec(epochs=8))
    assert train.half_size_share == share
    assert train.half_size_epochs == 8 * share


def test_the_space_is_conditional() -> None:
    families = set()
    for params in proposals(config(), 40):
        families.add(params["family"])
        parameters = find_family(str(params["family"])).parameters
        expected = {p.name for p in parameters if p.applies(params)}
        assert set(params) == {"family", "image_size", *expected}
        assert ("taps" in params) == (params.get("head") in ("ridge", "logistic"))
        assert ("flip" in params) == (params["family"] == "conv")
    assert families == set(FAMILIES)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_points_of_the_space(name: str) -> None:
    search = config("space.head_views=[plain, weighted]", "space.rotation_factor.high=0.9")
    spec = baseline(name, epochs=search.epochs)
    params = space.to_params(spec)
    assert params is not None
    assert space.locate(params, search, FAMILIES) is not None
    assert space.to_spec(params, search, name, seed=0).model == spec.model


def test_points_outside_the_space_are_not_located() -> None:
    params = space.to_params(baseline("tutorial_3"))
    assert params is not None
    assert space.locate(params, config("space.conv_depth.high=2"), FAMILIES) is None
    assert space.locate(params, config("space.optimizer=[sgd]"), FAMILIES) is None
    assert space.locate(params, config(), ["transfer"]) is None


def test_widths_that_fit_no_growth_have_no_params() -> None:
    spec = baseline("tutorial_1").model_copy(update={"model": ConvSpec(filters=(32, 48))})
    assert space.to_params(spec) is None


def test_identity_is_all_but_name_and_seed() -> None:
    one, other = baseline("tutorial_4", seed=1), baseline("tutorial_4", seed=2)
    assert space.identity(one) == space.identity(other)
    wider = one.model_copy(update={"model": TransferSpec(dense_width=64)})
    assert space.identity(wider) != space.identity(one)
