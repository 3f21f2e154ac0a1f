"""Report and TensorBoard in a real browser, on a real search of both families."""

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawtune.search.run import Run, open_run
from pawtune.search.tensorboard.trial_events import run_label
from tests.board import fetch, free_port, run_board
from tests.browser import Browser, run_browser
from tests.networks import save_random_backbone
from tests.run_folders import RunMaker
from tests.waiting import wait_until

IMAGE_SIZE = 32


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with run_browser() as started:
        yield started


@pytest.fixture(scope="module")
def finished(
    browser: Browser,  # first: without one the search is not run for nothing
    tmp_path_factory: pytest.TempPathFactory,
    tiny_images: Path,
    ray_cluster: object,
) -> Run:
    """A finished search: two conv nets, two heads on an untrained backbone."""

    from pawtune.search.config.search_config import load_config
    from pawtune.search.driver import run_search

    folder = tmp_path_factory.mktemp("browser")
    weights = folder / "mobilenet_v2.weights.h5"
    save_random_backbone(weights, IMAGE_SIZE)
    space = ["conv_depth=2", "filters=[8]", "conv_dense_width=0", "head_dense_width=[0, 16]"]
    space += ["head=trained", "head_views=weighted"]  # curves of several epochs
    config = load_config(
        None,
        [*(f"space.{item}" for item in space), "scheduler.name=none"],
        {
            "data": str(tiny_images),
            "families": ["conv", "transfer"],
            "name": "seen",
            "runs_dir": str(folder / "runs"),
            "weights": str(weights),
            "image_size": [IMAGE_SIZE],
            "epochs": 2,
            "trials": 6,
            "seed": 1,
            "baselines": "off",
        },
    )
    run = run_search(config)
    assert len({row.family for row in run.rows()}) == 2
    return run


@pytest.fixture(scope="module")
def report(finished: Run) -> str:
    from pawtune.search.report.page import write_report

    return write_report(finished).as_uri()


OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
EMPTY_FIGURES = """[...document.querySelectorAll("figure > svg")].filter((svg) => {
    const box = svg.getBoundingClientRect();
    return box.width < 100 || box.height < 40 || !svg.querySelector("path");
}).length"""
BROKEN_PICTURES = "[...document.images].filter((image) => !image.naturalWidth).length"


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_the_report_is_whole_on_phone_and_desk(
    browser: Browser, report: str, width: int, dark: bool
) -> None:
    browser.open(report, width=width, dark=dark)
    assert browser.evaluate(OVERFLOW) == 0
    assert browser.evaluate(EMPTY_FIGURES) == 0
    assert browser.evaluate("document.querySelectorAll('figure > svg').length") >= 8
    assert browser.evaluate(BROKEN_PICTURES) == 0
    assert browser.evaluate("document.images.length") >= 16
    assert browser.complaints == []
    assert [asked for asked in browser.requests if not asked.startswith("data:")] == [report]
    page, ink = (
        browser.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("backgroundColor", "color")
    )
    assert (brightness(page) < brightness(ink)) == dark


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour[4:-1].split(",")[:3])


def column(browser: Browser, number: int) -> list[str]:
    cells = f"[...document.querySelectorAll('#board tbody tr')].map(r => r.cells[{number}]"
    return list(browser.evaluate(f"{cells}.dataset.v)"))


def test_the_leaderboard_sorts_and_filters(browser: Browser, report: str, finished: Run) -> None:
    browser.open(report)
    rows = finished.rows()
    assert column(browser, 0) == [row.name for row in rows]
    heading = "[...document.querySelectorAll('#board thead button')].find(b => b.innerText == '{}')"
    by_weights = heading.format("weights") + ".click()"
    browser.evaluate(by_weights)
    weights = [int(value) for value in column(browser, 10)]
    assert weights == sorted(weights, reverse=True)
    browser.evaluate(by_weights)
    assert [int(value) for value in column(browser, 10)] == sorted(weights)
    browser.evaluate(heading.format("filters") + ".click()")
    filters = column(browser, column_of(browser, "filters"))
    assert filters == sorted(filters, key=lambda value: value == "")  # empty ones last
    browser.evaluate(
        "(() => { const filter = document.getElementById('filter');"
        "filter.value = 'transfer'; filter.dispatchEvent(new Event('input')); })()"
    )
    shown = browser.evaluate(
        "[...document.querySelectorAll('#board tbody tr:not([hidden])')].length"
    )
    assert shown == sum(row.family == "transfer" for row in rows)


def column_of(browser: Browser, title: str) -> int:
    headings = browser.evaluate(
        "[...document.querySelectorAll('#board thead th')].map(h => h.innerText.trim())"
    )
    return next(n for n, heading in enumerate(headings) if heading.startswith(title))


def test_a_trial_under_the_pointer_stands_out_everywhere(browser: Browser, report: str) -> None:
    browser.open(report)
    browser.evaluate(
        "document.querySelector('tr[data-trial=\"0001\"] td')"
        ".dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))"
    )
    lit = browser.evaluate("document.querySelectorAll('svg.lit .t.on').length")
    assert lit >= 5
    assert (
        browser.evaluate("document.querySelectorAll('.t.on:not([data-trial=\"0001\"])').length")
        == 0
    )


@pytest.fixture(scope="module")
def board(finished: Run) -> Iterator[str]:
    """`pawtune tensorboard` on the finished run; yields its address."""
    with run_board(finished.folder.root, num_runs=7) as address:
        yield address


# TensorBoard's pages are made of shadow roots within shadow roots.
DEEP = """const deep = (selector) => {
    const found = [];
    const walk = (root) => {
        found.push(...root.querySelectorAll(selector));
        root.querySelectorAll("*").forEach((item) => item.shadowRoot && walk(item.shadowRoot));
    };
    walk(document);
    return found;
};"""


def deep(script: str) -> str:
    return f"(() => {{ {DEEP} return {script}; }})()"


def test_tensorboard_listens_on_this_machine_only(board: str) -> None:
    port = int(board.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = [line.split()[1] for line in listening if line.split()[3] == "0A"]
    assert [place for place in local if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_hparams_has_every_trial_every_parameter_and_the_right_best(
    browser: Browser, board: str, finished: Run
) -> None:
    rows = finished.rows()
    experiment = fetch(f"{board}/data/plugin/hparams/experiment", {"experimentName": ""})
    columns = {info["name"] for info in experiment["hparamInfos"]}
    assert columns == {name for row in rows for name in row.params}
    statuses = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    asked = {"allowedStatuses": statuses, "colParams": [], "startIndex": 0, "sliceSize": 100}
    groups = fetch(f"{board}/data/plugin/hparams/session_groups", asked)["sessionGroups"]
    best = {
        group["name"]: next(
            item["value"]
            for item in group["metricValues"]
            if item["name"]["tag"] == "best_val_accuracy"
        )
        for group in groups
    }
    assert best == {
        run_label(row.trial_id, row.name): pytest.approx(row.best_val_accuracy) for row in rows
    }
    for family in ("conv", "transfer"):
        assert sum(row.family == family for row in rows) >= 2
    browser.open(f"{board}/#hparams", width=1600)
    for row in rows:
        label = run_label(row.trial_id, row.name)
        cells = "deep('vaadin-grid-cell-content').map((cell) => cell.innerText.trim())"
        browser.wait(deep(f"{cells}.includes({label!r})"))
    boxes = set(browser.evaluate(deep("deep('paper-checkbox').map((box) => box.innerText.trim())")))
    assert columns | {"best_val_accuracy", "stopped early"} <= boxes


@pytest.mark.parametrize(
    ("tab", "rendered"),
    [
        ("timeseries", "deep('scalar-card svg path, scalar-card canvas').length"),
        ("custom_scalars", "deep('vz-line-chart2, vz-line-chart, canvas, svg path').length"),
        ("images", "deep('img').filter((image) => image.naturalWidth > 0).length"),
        ("text", "deep('td').filter((cell) => cell.innerText.includes('learning_rate')).length"),
        ("graphs", "deep('g.node, g.nodes > g').length"),
    ],
)  # fmt: skip
def test_every_tab_of_tensorboard_renders(
    browser: Browser, board: str, tab: str, rendered: str
) -> None:
    browser.open(f"{board}/#{tab}", width=1400, height=1000)
    assert browser.wait(deep(rendered)) >= 1


def test_scalars_are_those_of_the_leaderboard(board: str, finished: Run) -> None:
    for row in finished.rows():
        label = run_label(row.trial_id, row.name)
        points = fetch(f"{board}/data/plugin/scalars/scalars?tag=val_accuracy&run={label}")
        history = finished.folder.trial(row.trial_id).read_metrics()
        assert [(step, round(value, 5)) for _, step, value in points] == [
            (epoch["epoch"], round(epoch["val_accuracy"], 5)) for epoch in history
        ]


def test_optuna_dashboard_shows_what_explains_a_trial(browser: Browser, finished: Run) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    program, port = Path(sys.executable).with_name("optuna-dashboard"), free_port()
    process = subprocess.Popen(
        [program, f"sqlite:///{finished.folder.study_file}", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        studies = wait_until(lambda: fetch(f"{address}/api/studies"), process=process)
        (study,) = studies["study_summaries"]
        assert study["study_name"] == "seen"
        rows = finished.rows()
        trials = f"{address}/dashboard/studies/{study['study_id']}/trials?numbers="
        shown = []
        for number in range(len(rows)):
            browser.open(f"{trials}{number}")
            shown.append(browser.wait("document.body.innerText.match(/name\\s+(\\w+-\\d+)/)?.[1]"))
        assert set(shown) == {row.name for row in rows}
    finally:
        browser.open("about:blank")  # the page asks its server for news until it is left
        process.terminate()
        process.wait(20)


def test_a_report_of_many_trials_fits_a_phone(
    browser: Browser, tiny_images: Path, runs_dir: Path
) -> None:
    from pawtune.search.report.page import write_report

    maker = RunMaker(runs_dir, tiny_images, "a-run-with-quite-a-long-name-" + "x" * 60)
    maker.proposals(60)
    path = write_report(open_run(maker.finish().root))
    browser.open(path.as_uri(), width=390)
    assert browser.evaluate(OVERFLOW) == 0
    assert browser.complaints == []


def test_the_audit_is_decided_by_keyboard_and_saved(
    browser: Browser, finished: Run, tmp_path: Path
) -> None:
    """Wrong labels of an untrained backbone's head stand in: the page does not mind."""
    from pawtune.data_pipeline.splitting.build import build_manifest

    audit, page = finished.audit()
    wrong, decided = audit.labels[:3], "document.getElementById('decided').textContent"
    assert len(wrong) == 3
    browser.open(page.as_uri())
    assert browser.evaluate(BROKEN_PICTURES) == 0
    assert browser.evaluate(OVERFLOW) == 0
    browser.evaluate("document.querySelector('.card').focus()")
    for key in ("r", "d", "k", "d", "ArrowLeft", "u"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert browser.evaluate(decided) == "3"
    browser.open(page.as_uri())
    assert browser.evaluate(decided) == "3"  # kept by the browser
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.evaluate("document.getElementById('save').click()")
    saved = tmp_path / "relabel.csv"
    wait_until(saved.exists, 30)
    assert saved.read_text().splitlines() == [
        "path,sha256,decision,label",
        f"{wrong[0].path},{wrong[0].sha256},relabel,{wrong[0].suggested}",
        f"{wrong[1].path},{wrong[1].sha256},drop,",
        f"{wrong[2].path},{wrong[2].sha256},keep,",
    ]
    assert browser.complaints == []
    root = Path(finished.manifest().root)
    corrected = {entry.path: entry.label for entry in build_manifest(root, relabel=saved).entries}
    assert corrected[wrong[0].path] == wrong[0].suggested
    assert wrong[1].path not in corrected
    assert corrected[wrong[2].path] == wrong[2].label


def test_advice_comes_from_the_run_after_a_move(finished: Run, tmp_path: Path) -> None:
    """Features are found by their key, wherever the run and the images are."""
    moved = open_run(shutil.copytree(finished.folder.root, tmp_path / "moved"))
    advice = moved.advise()
    assert advice.images == len([e for e in finished.manifest().entries if e.split != "test"])
    assert [each.images for each in advice.forecasts][0] == advice.images
    assert {need.name for need in advice.classes} == set(finished.manifest().class_names)
    assert (moved.folder.audit_dir / "advice.json").exists()


def test_a_run_predicts_label_sets(finished: Run, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pawtune.search.cli.app import app
    from pawtune.search.errors import UserError

    images, out = Path(finished.manifest().root) / "red", tmp_path / "labels.csv"
    command = ["predict", str(finished.folder.root), str(images), "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--coverage", "0.6"], catch_exceptions=False)
    assert done.exit_code == 0
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(list(images.iterdir()))
    assert all(row["labels"].split("|")[0] in (row["label"], "") for row in rows)
    with pytest.raises(UserError, match="--coverage must be between 0 and 1, .* received 1.5"):
        CliRunner().invoke(app, [*command, "--force", "--coverage", "1.5"], catch_exceptions=False)
