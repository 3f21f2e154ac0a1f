"""The shipped cluster files: what Ray's own validator checks, and what it lets pass."""

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from pawtune.search.cluster.autoscaler import addable_nodes
from pawtune.search.cluster.capacity import NodeKind

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "cluster.yaml"
RAYJOB = ROOT / "docs" / "rayjob.yaml"
# Keys of boto3's create_instances that we use; Ray passes node_config on without a look.
EC2_KEYS = {"InstanceType", "ImageId", "BlockDeviceMappings", "InstanceMarketOptions"}
Config = dict[str, Any]


@pytest.fixture
def cluster() -> Config:
    return load(CLUSTER)


@pytest.fixture
def job() -> Config:
    return load(RAYJOB)["spec"]


def load(path: Path) -> Config:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def pinned(package: str) -> str:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}==(\S+)$", pins, re.MULTILINE)
    assert found is not None
    return found.group(1)


def workers(cluster: Config) -> dict[str, Config]:
    types: dict[str, Config] = cluster["available_node_types"]
    return {name: node for name, node in types.items() if name != cluster["head_node_type"]}


def test_no_shipped_yaml_is_left_unchecked() -> None:
    """Hidden files are configuration of tools; they are checked by their use."""
    shipped = {*ROOT.glob("[!.]*.y*ml"), *(ROOT / "docs").rglob("*.y*ml")}
    # docs/rayservice.yaml is checked where Ray Serve is: tests/test_serving.py.
    assert shipped == {CLUSTER, RAYJOB, ROOT / "docs" / "rayservice.yaml"}


def test_rays_validator_accepts_it(cluster: Config) -> None:
    validate_config(prepare_config(cluster))


def test_rays_validator_would_notice_a_typo(cluster: Config) -> None:
    wrong = copy.deepcopy(cluster)
    wrong["idle_timeout_minuets"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuets"):
        validate_config(prepare_config(wrong))


def test_cluster_name_region_and_zones(cluster: Config) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]*", cluster["cluster_name"])
    region = cluster["provider"]["region"]
    assert re.fullmatch(r"[a-z]{2}-[a-z]+-\d", region)
    zones = cluster["provider"]["availability_zone"].split(",")
    assert all(re.fullmatch(rf"{region}[a-f]", zone) for zone in zones)
    # The shared file system is looked up in one region.
    hosts = re.findall(r"efs\.([a-z0-9-]+)\.", " ".join(cluster["initialization_commands"]))
    assert hosts == [region]


def test_node_types(cluster: Config) -> None:
    assert cluster["head_node_type"] == "ray.head.default"  # what Ray's monitor looks for
    for name, node in cluster["available_node_types"].items():
        assert set(node["node_config"]) <= EC2_KEYS, name
        assert re.fullmatch(r"[a-z]\d[a-z]*\.\d*x?large", node["node_config"]["InstanceType"]), name
        (disk,) = node["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] >= 100, name
        # Resources are stated: nothing has to be asked of the cloud to plan a search.
        assert "CPU" in node["resources"], name
    assert cluster["available_node_types"]["ray.head.default"]["resources"] == {"CPU": 0}


def test_workers_come_from_zero_on_spot_with_a_fallback_on_demand(cluster: Config) -> None:
    kinds = {}
    for name, node in workers(cluster).items():
        assert node["min_workers"] == 0, name
        assert 0 < node["max_workers"] <= cluster["max_workers"], name
        market = node["node_config"].get("InstanceMarketOptions", {}).get("MarketType", "on demand")
        kinds[market] = {**node["resources"], "type": node["node_config"]["InstanceType"]}
    assert set(kinds) == {"spot", "on demand"}
    assert kinds["spot"] == kinds["on demand"], "a fallback must be able to run the same trials"
    assert kinds["spot"]["GPU"] >= 1


def test_images_are_those_of_the_pinned_ray(cluster: Config, job: Config) -> None:
    python = r"-py3(11|12|13)"
    version = re.escape(pinned("ray"))
    assert re.fullmatch(rf"rayproject/ray:{version}{python}-cpu", cluster["docker"]["head_image"])
    assert re.fullmatch(rf"rayproject/ray:{version}{python}-gpu", cluster["docker"]["worker_image"])
    spec = job["rayClusterSpec"]
    assert spec["rayVersion"] == pinned("ray")
    for group, kind in [(spec["headGroupSpec"], "cpu"), (spec["workerGroupSpecs"][0], "gpu")]:
        (container,) = group["template"]["spec"]["containers"]
        assert re.search(rf":{version}{python}-{kind}$", container["image"])


def test_everything_that_is_installed_is_there_and_nothing_else(cluster: Config) -> None:
    home = "/home/ray/pawtune/"
    ours = {
        remote.removeprefix(home): local
        for remote, local in cluster["file_mounts"].items()
        if remote.startswith(home)
    }
    assert all((ROOT / local).exists() and remote == local for remote, local in ours.items())
    # What pyproject.toml needs to build, and the pins.
    packages = {"pawtune", "data_pipeline", "models", "search"}
    assert set(ours) == {*packages, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    for kind in ("head", "worker"):
        (command,) = cluster[f"{kind}_setup_commands"]
        assert f"cd {home.rstrip('/')} && pip install" in command
        assert "--constraint constraints.txt ." in command.replace("'", "")


def test_the_token_is_asked_for_and_never_written_down(cluster: Config, job: Config) -> None:
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for path in (CLUSTER, RAYJOB):
        assert "RAY_AUTH_TOKEN" not in path.read_text(encoding="utf-8")


def start_options(commands: list[str]) -> dict[str, str]:
    (line,) = [command for command in commands if command.startswith("ray start")]
    pairs = [word.removeprefix("--").partition("=") for word in shlex.split(line)[2:]]
    return {name: value for name, _, value in pairs}


def test_nothing_listens_to_the_world(cluster: Config, job: Config) -> None:
    head = start_options(cluster["head_start_ray_commands"])
    worker = start_options(cluster["worker_start_ray_commands"])
    assert head["dashboard-host"] == "127.0.0.1"
    assert "dashboard-host" not in worker
    assert "ray-client-server-port" not in head
    assert not any("0.0.0.0" in str(value) for value in cluster.values())
    # Ray's default group lets in SSH and its own members; we open nothing beside it.
    assert "security_group" not in cluster["provider"]
    assert "ports" not in " ".join(cluster["docker"]["run_options"])
    assert job["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_ray_start_knows_the_options(cluster: Config, job: Config) -> None:
    from ray.scripts.scripts import start

    known = {option.lstrip("-") for parameter in start.params for option in parameter.opts}
    spec = job["rayClusterSpec"]
    given = [
        start_options(cluster["head_start_ray_commands"]),
        start_options(cluster["worker_start_ray_commands"]),
        spec["headGroupSpec"]["rayStartParams"],
        spec["workerGroupSpecs"][0]["rayStartParams"],
    ]
    for options in given:
        assert set(options) <= known
        assert int(options["object-store-memory"]) >= 4_000_000_000


def test_rayjob_can_be_applied(job: Config) -> None:
    document = load(RAYJOB)
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9-]{1,47}", document["metadata"]["name"])  # KubeRay's limit
    environment = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    declared, most = addable_nodes(environment.pop("PAWTUNE_AUTOSCALING"))
    assert environment == {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "20"}
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    node = NodeKind(float(limits["cpu"]), float(limits["nvidia.com/gpu"]), group["maxReplicas"])
    assert (declared, most) == ((node,), None)
    assert 0 == group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for pod in (job["rayClusterSpec"]["headGroupSpec"], group):
        volumes = {volume["name"] for volume in pod["template"]["spec"]["volumes"]}
        (container,) = pod["template"]["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        # Ray's object store lives in /dev/shm, which Kubernetes makes 64 MB small by itself.
        assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}


def parsed(words: list[str]) -> dict[str, Any]:
    """Options of a `pawtune` command as the real command line reads them, without running it."""
    import typer.main

    from pawtune.search.cli.app import app

    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    context = command.make_context(words[0], words[1:])
    if words[0] == "submit":  # what is left over are options of run
        assert "run" not in context.args
        return parsed(["run", *context.args])
    return dict(context.params)


def test_the_rayjobs_entrypoint_is_a_command_of_ours(job: Config) -> None:
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["exec", "pawtune"]
    options = parsed(words[2:])
    assert options["runs_dir"].startswith("/shared/")
    assert options["address"] == "auto"


def test_commands_of_the_page_are_commands_of_ours() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("pawtune")]
    verbs = [shlex.split(line, comments=True)[1] for line in lines]
    assert list(dict.fromkeys(verbs))[:7] == [
        "run", "submit", "list", "logs", "status", "stop", "resume",
    ]  # fmt: skip
    for line in lines:
        parsed(shlex.split(line, comments=True)[1:])
