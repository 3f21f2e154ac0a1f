"""The report of every kind of run, and the plots: from run folders written as files."""

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pawtune.data_pipeline.url_credentials import without_secrets
from pawtune.models.baselines import BASELINES, baseline
from pawtune.models.spec import TrialSpec
from pawtune.search.report.budget import budget, count_bank_passes, saved_epochs, saved_passes
from pawtune.search.report.data import read_report_data
from pawtune.search.report.figures import new_axes, styled
from pawtune.search.report.history_figures import draw_learning_curves
from pawtune.search.report.importance import rank_parameters
from pawtune.search.report.page import write_report
from pawtune.search.report.result_figures import pareto_front
from pawtune.search.report.space_figures import place_values, thin_labels
from pawtune.search.report.trial_marks import best_of, compact, count_drawn, stretch_accuracy
from pawtune.search.run import Run, open_run
from pawtune.search.storage.run_folder import RunFolder, read_json, write_json
from pawtune.search.storage.run_lock import RunLock
from tests.command_line import pawtune
from tests.run_folders import RunMaker, make_images

MAX_BYTES = 10_000_000


class Page(HTMLParser):
    """What a report holds: its words, identifiers, addresses, figures; tags must be balanced."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.figures: dict[str, str] = {}
        self.pictures: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids[found["id"]] += 1
        self.addresses += [found[key] for key in ("src", "href", "xlink:href") if key in found]
        if tag == "svg":
            assert found["role"] == "img"
            self.figures[found["data-figure"]] = found["aria-label"]
        if tag == "img":
            assert found["alt"]
            self.pictures.append(found["alt"])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


def report(run: RunFolder, **options: Path) -> Page:
    """Makes the page and checks what must hold for every run."""
    path = write_report(Run(run), **options)  # type: ignore[arg-type]
    text = path.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    page = Page(text)
    assert [key for key, number in page.ids.items() if number > 1] == []
    assert [a for a in page.addresses if not a.startswith(("data:", "#"))] == []
    local = {a[1:] for a in page.addresses if a.startswith("#")}
    assert local <= set(page.ids)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert all(page.figures.values())
    assert not re.search(r"\bnan\b|\binf\b", " ".join(page.figures.values()))
    assert write_report(Run(run), kind="md").read_text(encoding="utf-8").startswith("## ")
    return page


@pytest.fixture
def maker(tiny_images: Path, runs_dir: Path) -> RunMaker:
    return RunMaker(runs_dir, tiny_images, baselines="on")


@pytest.fixture
def usual(maker: RunMaker) -> RunMaker:
    """Five baselines, 12 proposals of each family, a failure."""
    maker.baselines(list(BASELINES))
    maker.proposals(12, ["conv"])
    maker.proposals(12, ["transfer"])
    reason = "DivergedError: loss must stay finite"
    maker.add(renamed("conv-0030"), status="failed", epochs=2, reason=reason)
    return maker


@pytest.fixture
def small(maker: RunMaker) -> RunMaker:
    """Three trials, none of them perfect."""
    maker.add(baseline("tutorial_4", 10), is_baseline=True, accuracy=0.6)
    maker.add(renamed("conv-0002"), accuracy=0.7)
    maker.add(renamed("conv-0003"), epochs=3, accuracy=0.65)
    return maker


def renamed(name: str) -> TrialSpec:
    return baseline("tutorial_3", 10).model_copy(update={"name": name})


def test_a_usual_run_has_every_section_and_figure(usual: RunMaker) -> None:
    usual.look_at_test()
    page = report(usual.finish())
    assert {
        "standing",
        "history",
        "curves-conv",
        "curves-transfer",
        "importance-conv",
        "importance-transfer",
        "parallel-conv",
        "parallel-transfer",
        "slice-learning_rate",
        "slice-filters",
        "slice-optimizer",
        "cost-num_weights",
        "cost-training_s",
        "confusion-validation",
        "reliability",
        "timeline",
    } <= set(page.figures)
    for heading in ("Leaderboard", "Mistakes", "Data", "Budget", "Failures", "Reproduce"):
        assert heading in page.words
    best = Run(usual.folder).rows()[0]
    assert f"{best.best_val_accuracy:.4f}" in page.text
    assert "95% interval 0.8920 to 0.9616" in page.text
    assert "DivergedError: loss must stay finite" in page.text
    assert "pawtune reproduce made" in page.text
    assert "Early stopping left out" in page.text
    assert "passes of an image through a backbone" in page.text
    assert len([alt for alt in page.pictures if "training image" in alt]) == 16
    assert all(f"trial-{n:04d}" in page.ids for n in range(1, 31))


def test_one_trial(maker: RunMaker) -> None:
    maker.proposals(1, ["conv"])
    page = report(maker.finish())
    assert "conv: importance needs 10 trials" in page.text
    assert "Two trials that differ are needed to compare parameters." in page.text
    assert "Two trials with a finished epoch are needed" in page.text
    assert "Nobody has looked yet: pawtune test made" in page.text
    assert "no other trial beat the first trial conv-0001" in page.text


def curve_legend(maker: RunMaker) -> list[str]:
    """The legend below the curves of the conv nets, from left to right."""
    drawing = draw_learning_curves(read_report_data(Run(maker.finish())), "conv")
    assert drawing is not None
    return re.findall(r">(conv|best(?:, in training)?)<", drawing.svg)


class TestCaptionsSpeakOfWhatIsShown:
    def test_bars_only_where_there_are_bars(self, maker: RunMaker) -> None:
        maker.proposals(3, ["conv"])
        page = report(maker.finish())
        assert "Lines: every trial through its parameters." in page.text
        assert "Bars: how much a parameter" not in page.text
        maker.proposals(9, ["conv"])
        assert "Bars: how much a parameter" in report(maker.finish()).text

    @pytest.mark.parametrize(
        ("reason", "words"), [("asha", "stopped early"), ("interrupted", "interrupted")]
    )
    def test_an_end_has_one_of_its_two_words(
        self, maker: RunMaker, reason: str, words: str
    ) -> None:
        maker.add(renamed("conv-0001"), accuracy=0.7)
        maker.add(renamed("conv-0002"), epochs=3, accuracy=0.6, status="stopped", reason=reason)
        page = report(maker.finish())
        assert f"Hollow markers were {words}; the line" in page.text
        assert f"An open end is a trial {words}." in page.text
        assert f"pale bars were {words}." in page.text

    def test_a_solved_head_has_no_curve_in_training(self, maker: RunMaker) -> None:
        """Its accuracy in training is 1, which stretched the axis around nothing."""
        maker.add(renamed("conv-0001"), epochs=10, accuracy=0.5)
        maker.add(renamed("conv-0002"), epochs=1, accuracy=0.7)
        drawn = curve_legend(maker)
        assert drawn == ["conv", "best"]

    def test_the_only_trial_is_drawn_in_ink_alone(self, maker: RunMaker) -> None:
        maker.add(renamed("conv-0001"), epochs=10, accuracy=0.5)
        assert curve_legend(maker) == ["best", "best, in training"]


@pytest.mark.slow
def test_two_hundred_trials_stay_small(maker: RunMaker) -> None:
    maker.proposals(200)
    page = report(maker.finish("time budget"))
    assert "The search ended early: time budget." in page.text
    assert len([key for key in page.ids if key.startswith("trial-")]) == 200


def test_only_failures(maker: RunMaker) -> None:
    for number in (1, 2, 3):
        maker.add(renamed(f"conv-000{number}"), status="failed", epochs=0, reason="OSError: no")
    page = report(maker.finish("every trial fails alike: OSError: no"))
    assert "No trial has finished an epoch: there is nothing to rank yet." in page.text
    assert "3 trials failed." in page.text
    assert "There is no confusion matrix: no trial has finished an epoch." in page.text
    assert set(page.figures) == {"timeline"}
    assert "Nobody has looked, and there is nothing to test yet." in page.text
    assert "pawtune show made 0001" in page.text
    assert "pawtune resume made" in page.text
    assert "pawtune best" not in page.text


def test_a_trial_cut_short_is_not_called_stopped_early(small: RunMaker) -> None:
    small.add(renamed("conv-0004"), epochs=2, accuracy=0.6, status="stopped", reason="interrupted")
    page = report(small.finish("interrupted"))
    assert "2 completed, 1 stopped early, 1 interrupted" in page.text
    assert "left out 7 epochs of 40" in page.text


def test_failures_that_had_begun(maker: RunMaker) -> None:
    maker.add(renamed("conv-0001"), status="failed", epochs=2, reason="MemoryError")
    assert set(report(maker.finish()).figures) == {"curves-conv", "timeline"}


def test_one_family(maker: RunMaker) -> None:
    maker.proposals(12, ["transfer"])
    page = report(maker.finish())
    assert "curves-conv" not in page.figures
    assert "importance-transfer" in page.figures


def test_ten_classes(tmp_path: Path, runs_dir: Path) -> None:
    images = make_images(tmp_path / "ten", [f"class {n}" for n in range(10)], 10)
    maker = RunMaker(runs_dir, images)
    maker.proposals(3)
    page = report(maker.finish())
    assert "10 classes" in page.text
    assert "class 9" in page.text


def test_what_was_left_out_is_told_with_its_reason(tmp_path: Path, runs_dir: Path) -> None:
    images = make_images(tmp_path / "odd", ["a", "b"], 10)
    (images / "a" / "broken.jpg").write_bytes(b"no picture")
    maker = RunMaker(runs_dir, images)
    (reject,) = maker.manifest.rejects
    page = report(maker.finish())
    assert "Left out: 1 file " in page.text
    assert "a/broken.jpg" in page.text
    assert reject.reason in page.text


def test_without_baselines_the_first_trial_is_the_reference(
    tiny_images: Path, runs_dir: Path
) -> None:
    maker = RunMaker(runs_dir, tiny_images, baselines="off")
    maker.proposals(2, ["conv"])
    text = report(maker.finish()).text
    assert re.search(r"Against the first trial .{2,12} .*first trial conv-0001: 0\.\d{4}", text)
    assert "The best trials. Bars are 95% intervals" in text, "captions speak of what was run"
    assert "tutorial" not in text.partition("Learning curves")[0]


def test_nothing_has_begun(maker: RunMaker) -> None:
    page = report(maker.folder)
    assert "This search has not ended (or was killed)" in page.text
    assert "No trial was proposed yet." in page.text


@pytest.mark.parametrize("metric", ["val_loss", "val_balanced_accuracy"])
def test_other_metrics(tiny_images: Path, runs_dir: Path, metric: str) -> None:
    maker = RunMaker(runs_dir, tiny_images, metric=metric)
    maker.proposals(12, ["conv"])
    page = report(maker.finish())
    words = {"val_loss": "validation loss", "val_balanced_accuracy": "balanced validation accuracy"}
    assert words[metric] in page.figures["history"].lower()


def test_a_running_search_with_a_trial_before_its_first_epoch(small: RunMaker) -> None:
    folder = small.folder.trial("0003")
    folder.metrics_file.unlink()
    folder.facts_file.unlink()
    folder.write_status("running", started=1.0)
    with RunLock(small.folder):
        page = report(small.folder)
    assert "1 running" in page.text
    assert "This search has not ended" in page.text


def test_images_that_moved(small: RunMaker, tiny_images: Path, tmp_path: Path) -> None:
    run = small.finish()
    moved = tmp_path / "moved"
    shutil.copytree(tiny_images, moved)
    manifest = (run.root / "manifest.json").read_text()
    (run.root / "manifest.json").write_text(manifest.replace(str(tiny_images), "/nowhere"))
    page = report(run)
    assert page.pictures == []
    assert "The images are not in /nowhere (any more): show them with --data NEWPLACE." in page.text
    shown = report(run, images=moved).pictures
    assert any("taken for" in alt for alt in shown)
    assert len([alt for alt in shown if "training image" in alt]) == 16


def test_no_test_image_is_read(small: RunMaker, tiny_images: Path, tmp_path: Path) -> None:
    run = small.finish()
    images = tmp_path / "images"
    shutil.copytree(tiny_images, images)
    before = report(run, images=images)
    for entry in small.manifest.split("test"):
        (images / entry.path).unlink()
    after = report(run, images=images)
    assert after.pictures == before.pictures
    tested = {entry.path for entry in small.manifest.split("test")}
    assert not any(path in alt for path in tested for alt in after.pictures)


def test_a_changed_image_is_not_shown(small: RunMaker, tiny_images: Path, tmp_path: Path) -> None:
    run = small.finish()
    images = tmp_path / "images"
    shutil.copytree(tiny_images, images)
    for entry in small.manifest.split("validation"):
        Image.new("RGB", (48, 40)).save(images / entry.path)
    assert not any("taken for" in alt for alt in report(run, images=images).pictures)


def test_advice_is_shown_once_it_was_asked_for(small: RunMaker) -> None:
    run = small.finish()
    assert "pawtune advise made says what more images would bring" in report(run).text
    at = [{"images": n, "accuracy": n / 1000, "band": [0.5, 0.95]} for n in (800, 900)]
    write_json(
        run.audit_dir / "advice.json", {"forecasts": at, "classes": [{"name": "a", "recall": 0.7}]}
    )
    page = report(run).text
    assert "on 800 training and validation images is right on 80.0%; with 900 images" in page
    assert "90.0% (90% band 50.0% to 95.0%). Lowest recall, where images" in page
    write_json(run.audit_dir / "advice.json", {"forecasts": 3})
    assert "advice.json cannot be read" in report(run).text


def test_spoilt_files_are_told(small: RunMaker) -> None:
    run = small.finish()
    best = Run(run).rows()[0]
    run.trial(best.trial_id).best_predictions.write_bytes(b"no array")
    page = report(run)
    assert f"the validation predictions of trial {best.trial_id} cannot be read" in page.text
    (run.root / "manifest.csv").write_text("spoilt")
    assert "The manifest cannot be read" in report(run).text


def test_names_cannot_run_code_or_break_the_page(runs_dir: Path, tmp_path: Path) -> None:
    names = ["<script>alert(1)<", "$x^2$ & \"q\" 'r'"]
    images = make_images(tmp_path / "odd", names, 10)
    maker = RunMaker(runs_dir, images)
    maker.add(renamed("<img src=x onerror=alert(1)>|`*"))
    maker.add(renamed("n" * 300), status="failed", reason="<b>|bold|</b>")
    page = report(maker.finish())
    assert any("$x^2$" in word for word in page.words)
    assert "<img src=x onerror=alert(1)>" in page.text
    assert not any("onerror" in address for address in page.addresses)
    markdown = (maker.folder.root / "report.md").read_text()
    assert r"\<img src=x onerror=alert(1)\>\|\`\*" in markdown


def test_the_page_allows_its_own_script_alone(small: RunMaker) -> None:
    path = write_report(Run(small.finish()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', path.read_text())
    assert policy is not None
    assert "default-src 'none'" in policy.group(1)
    assert re.search(r"script-src 'sha256-[\w+/=]+'", policy.group(1))


def test_credentials_are_blotted_out() -> None:
    assert without_secrets("gs://u:p@h/x?token=a&n=1") == "gs://***@h/x?token=***&n=1"
    assert without_secrets("data: /home/me/cats") == "data: /home/me/cats"


def test_the_corrected_figure_is_in_the_headline(small: RunMaker) -> None:
    run = small.finish()
    estimate = Run(run).validation()
    assert estimate is not None
    page = report(run)
    assert f"{estimate.corrected_accuracy:.4f}" in page.text
    assert f"for picking the best of {estimate.candidates}" in page.text


def test_every_look_after_the_first_is_called_one(small: RunMaker) -> None:
    small.look_at_test()
    small.look_at_test(looks=2)
    assert "Look 2 at this split: no longer an honest test" in report(small.finish()).text


def test_the_budget_adds_up(maker: RunMaker) -> None:
    maker.add(renamed("conv-0001"), epochs=10)
    maker.add(renamed("conv-0002"), epochs=3)
    (row,) = budget(read_report_data(Run(maker.finish()))).rows
    assert (row.kind, row.trials, row.epochs, row.planned) == ("conv", 2, 13, 20)
    assert row.training_s == pytest.approx(13 * 6.0)
    assert row.other_s == pytest.approx(2 * 2.0)


def test_the_bank_saves_what_live_trials_would_compute(maker: RunMaker) -> None:
    maker.add(baseline("tutorial_4", 10), epochs=10)
    maker.add(baseline("tutorial_5", 10), epochs=3)
    maker.add(baseline("tutorial_5", 10), epochs=0, status="failed", reason="OSError: no")
    data = read_report_data(Run(maker.finish()))
    assert data.manifest is not None
    train, validation = (len(data.manifest.split(name)) for name in ("train", "validation"))
    assert (train, validation) == (56, 12)
    passes = 13 * 56 + 2 * 12
    assert (saved_passes(data), count_bank_passes(data)) == (passes, 17 * 56 + 12)
    assert f"stood in for {passes:,} passes" in budget(data).lines[-1]
    assert saved_epochs(data) == 7


def test_the_budget_tells_the_stages_and_the_sessions(maker: RunMaker) -> None:
    maker.add(renamed("conv-0001"), epochs=10)
    summary = {"reason": None, "seconds": 200.0, "stages": {"hash": 1.5, "decode at 160 px": 9.0}}
    write_json(maker.folder.summary_file, summary)
    (line, *_) = budget(read_report_data(Run(maker.folder))).lines
    assert line == (
        "From the first trial's start to the last one's end: 1 min 2 s; decode at 160 px: 9.0 s; "
        "hash: 1.5 s; the rest (starting Ray and TensorFlow, ranking): 2 min 8 s."
    )
    write_json(maker.folder.summary_file, {**summary, "seconds": 40.0, "stages": "odd"})
    (line, *_) = budget(read_report_data(Run(maker.folder))).lines
    assert line.endswith("1 min 2 s, of which the search was at work for 40.0 s.")


def test_importance_finds_the_parameter_that_decides(maker: RunMaker) -> None:
    maker.proposals(60, ["conv"])
    for folder in maker.folder.trials():
        rate = read_json(folder.spec_file)["params"]["learning_rate"]
        value = 0.9 if rate < 1e-3 else 0.6
        rows = [{**row, "val_accuracy": value} for row in folder.read_metrics()]
        folder.write_metrics(rows)
    shares = rank_parameters(read_report_data(Run(maker.folder)), "conv")
    assert shares is not None
    assert next(iter(shares)) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1.0)


def test_importance_calls_parameters_as_the_leaderboard_does(maker: RunMaker) -> None:
    maker.proposals(20, ["conv"])
    maker.proposals(20, ["transfer"])
    page = report(maker.finish())
    told = page.figures["importance-conv"] + page.figures["importance-transfer"]
    assert "dropout" in told
    assert "head_" not in told
    assert "conv_dropout" not in told
    columns = {name for row in Run(maker.folder).rows() for name in row.params}
    named = re.findall(r"([a-z_]+) \d+%", told)
    assert set(named) <= columns | {"filter_growth"}


def test_a_pareto_front() -> None:
    assert pareto_front([3, 1, 2, 1], [0.9, 0.5, 0.4, 0.6]) == [3, 0]
    assert pareto_front([1.0], [0.5]) == [0]


def test_places_on_an_axis() -> None:
    places, labels = place_values([1e-4, 1e-3, 1e-2, 2e-3, 3e-3, 4e-3, 5e-3], "learning_rate")
    assert places[:3] == pytest.approx([0.0, 0.5, 1.0])
    assert list(labels.values()) == ["1.0e-4", "0.001", "0.01"]
    assert place_values(["64-128", "16-32", "16-32"], "filters")[0] == [1.0, 0.0, 0.0]
    assert place_values([True, False], "batch_norm")[1] == {0.0: "False", 1.0: "True"}
    assert place_values([32, 32], "batch_size")[0] == [0.5, 0.5]
    places, labels = place_values([16, 64, 32, None], "batch_size")  # few, and spaced by value
    assert places[:3] == pytest.approx([0.0, 1.0, 1 / 3])
    assert list(labels.values()) == ["16", "32", "64"]


def test_labels_of_an_axis_do_not_cover_each_other() -> None:
    widths = ["16-16", "16-32-64", "32-32-64-64", "32-64-128-256", "64-128-256-512"]
    labels = {place / 4: text for place, text in enumerate(widths)}
    assert list(thin_labels(labels).values()) == [widths[0], widths[2], widths[4]]
    assert list(thin_labels(labels, 30).values()) == [widths[0], widths[4]]
    assert list(thin_labels(labels, 99).values()) == widths
    near = {0.0: "0", 0.01: "1", 0.5: "50", 0.52: "52", 1.0: "100"}
    assert list(thin_labels(near).values()) == ["0", "50", "100"]
    assert thin_labels({0.5: "only"}) == {0.5: "only"}


def test_an_axis_of_accuracy_is_stretched_where_it_helps() -> None:
    def stretched(scores: list[float]) -> tuple[str, list[float]]:
        with styled():
            axes = new_axes(2.0)
            told = stretch_accuracy(axes, "y", scores)
            return told, [float(tick) for tick in axes.get_yticks()]

    told, ticks = stretched([0.5, 0.95, 0.975])
    assert "stretched towards 1" in told
    assert {0.5, 0.9, 0.97} <= set(ticks)
    assert 1.0 in stretched([0.5, 1.0])[1]
    for even in ([0.5, 0.8], [0.96, 0.97], [0.3, 1.7], [-0.2, 0.95]):
        assert stretched(even)[0] == ""


def test_compact_numbers() -> None:
    assert [compact(v) for v in (2_586_434, 20_000, 12.0, 0.5)] == ["2.59M", "20k", "12", "0.5"]


def test_reports_and_plots_from_the_command_line(
    small: RunMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small.finish().root
    written = pawtune(capsys, "report", run, "--json").json
    assert written == {
        "path": str(run / "report.html"),
        "bytes": (run / "report.html").stat().st_size,
    }
    markdown = pawtune(capsys, "report", run, "--format=md", "--out", tmp_path / "r.md")
    assert markdown.out.startswith(str(tmp_path / "r.md"))
    assert "| rank | trial |" in (tmp_path / "r.md").read_text()
    drawn = pawtune(capsys, "plot", run, "--trials=0003,conv-0002", "--out", tmp_path / "c.png")
    assert drawn.code == 0
    assert drawn.out.endswith("conv-0003, conv-0002, tutorial_4\n")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > picture.height
    assert pawtune(capsys, "plot", run, "--out", tmp_path / "c.svg", "--json").json["trials"][0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report", "--format=pdf"], "--format must be html or md, received 'pdf'"),
        (["report", "--out=/proc/x/report.html"], "--out must be a file that can be written"),
        (["plot", "--out=curves.gif"], "--out must end in .png, .svg, .pdf, received 'curves.gif'"),
        (["plot", "--trials=0099"], "received '0099'; this run offers: 0001"),
        (["plot", "--out=/proc/x/c.png"], "--out must be a file that can be written"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    maker: RunMaker, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    maker.proposals(1, ["conv"])
    verb, *options = arguments
    ended = pawtune(capsys, verb, maker.folder.root, *options)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert told in line


def test_no_epoch_no_plot(maker: RunMaker, capsys: pytest.CaptureFixture[str]) -> None:
    ended = pawtune(capsys, "plot", maker.folder.root)
    assert ended.code == 2
    assert "a plot needs a trial with at least one finished epoch" in ended.err


def test_a_moved_run_reports_from_its_new_place(small: RunMaker, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere" / "copy"
    shutil.copytree(small.finish().root, place)
    path = write_report(open_run(place))
    assert path == place / "report.html"


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("7", "from 0 to 1, received 7.0"),
        ("nan", "received nan"),
        ("-0.5", "from 0 to 1, received -0.5"),
    ],
)
def test_impossible_metrics_are_refused(
    small: RunMaker, capsys: pytest.CaptureFixture[str], value: str, rule: str
) -> None:
    file = small.folder.trial("0002").metrics_file
    header, *rows = file.read_text().splitlines()
    cells = rows[0].split(",")
    cells[header.split(",").index("val_accuracy")] = value
    file.write_text("\n".join([header, ",".join(cells), *rows[1:]]))
    ended = pawtune(capsys, "report", small.folder.root)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert f"{file}: val_accuracy must be a number" in line
    assert rule in line


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[1, 2]",
        '{"accuracy": 0.9}',
        '{"accuracy": "<b>", "interval_95": [0, 1], "correct": 1, "n": 2, "trial_id": "0001"}',
        '{"accuracy": 1, "interval_95": [0], "correct": 1, "n": 2, "trial_id": "0001"}',
        '{"accuracy": 1, "interval_95": [0, 1], "correct": 1, "n": 2, "trial_id": "0001", '
        '"class_names": ["a", "b"], "confusion": [[1, 2], [3]]}',
    ],
)
def test_a_crafted_ledger_is_refused(
    small: RunMaker, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    small.folder.test_ledger.write_text(line + "\n")
    ended = pawtune(capsys, "report", small.folder.root)
    assert ended.code == 2
    (told,) = ended.err.splitlines()
    assert "test.jsonl" in told


def test_odd_parameters_and_times_do_no_harm(small: RunMaker) -> None:
    folder = small.folder.trial("0002")
    spec = read_json(folder.spec_file)
    spec["params"] |= {"flip": {"a": [1]}, "learning_rate": -1, "extra": ["<b>"], "dropout": True}
    folder.spec_file.write_text(json.dumps(spec))
    folder.write_status("completed", started="yesterday", finished=[], reason=None)
    page = report(small.folder)
    assert "['<b>']" in page.text


def test_figures_of_very_many_trials_show_the_best(maker: RunMaker) -> None:
    maker.proposals(20, ["conv"])
    trials = read_report_data(Run(maker.folder)).usable
    drawn = best_of(trials, 5)
    assert sorted(trial.row.rank for trial in drawn) == [1, 2, 3, 4, 5]
    assert count_drawn(drawn, trials) == "the best 5 of 20 trials"
    assert count_drawn(trials, trials) == "20 trials"


def test_every_family_has_a_mark_of_its_own() -> None:
    from pawtune.models.families.table import BUILT_IN
    from pawtune.search.report.figures import BASELINE_MARK, FAMILY_MARKS, kind_mark
    from pawtune.search.report.page import TEMPLATES

    marks = [kind_mark(kind) for kind in (*BUILT_IN, "baseline")]
    assert (
        len({mark.colour for mark in marks}) == len({mark.marker for mark in marks}) == len(marks)
    )
    assert {mark.name for mark in marks} <= {mark.name for mark in (*FAMILY_MARKS, BASELINE_MARK)}
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    for mark in FAMILY_MARKS:
        assert css.count(f"--{mark.name}: ") == 2, mark  # light and dark
        assert f".kind.{mark.name}::before" in css
