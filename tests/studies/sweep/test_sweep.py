from __future__ import annotations

import csv
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from matplotlib.figure import Figure
from revisions import BENCHMARKS, FULL_ROWS, SPLITS, accuracy, add, params, repository, rule_of
from studies import ENVIRONMENT, commit, run

from simgap.core.errors import SimgapError
from simgap.params.load import parse_params
from simgap.studies.revisions import Revision
from simgap.studies.sweep.figures import sweep_figures, sweep_styles
from simgap.studies.sweep.page import render, write_sweep
from simgap.studies.sweep.read import Sweep, read_sweep

THRESHOLDS = (0.0, 0.02, 0.05)
OF_THRESHOLD = ("sketch-pruned", "sketch-pruned-control", "sketch-pruned-matched")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three thresholds, the seeds of the last one in two revisions, and a revision of another study."""
    folder = repository(tmp_path_factory.mktemp("sweep"))
    add(folder, "baseline", 0.0, [0])
    add(folder, "first", 0.0, [1, 2])
    add(folder, "second", 0.02, [1, 2])
    add(folder, "third-1", 0.05, [1])
    add(folder, "third-2", 0.05, [2])
    add(folder, "other", 0.02, [1, 2], embedder__seed=1)
    add(folder, "fewer", 0.02, [1, 2], runs={"full": {}, "sketch-pruned": {}})
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def read(*names: str) -> Sweep:
    revisions = [Revision(name) for name in names]
    return read_sweep(revisions, revisions[0].params())


ALL = ("second", "first", "third-1", "third-2", "other")


@pytest.fixture
def sweep(here: Path) -> Sweep:
    return read(*ALL)


def test_points_are_means_over_the_seeds_of_all_revisions(sweep: Sweep) -> None:
    assert sweep.thresholds == list(THRESHOLDS)
    assert sweep.splits == list(OF_THRESHOLD)
    assert set(sweep.points) == {("full", None), ("reference-only", None)} | {
        (split, threshold) for split in OF_THRESHOLD for threshold in THRESHOLDS
    }
    for (split, threshold), point in sweep.points.items():
        # Every revision still has metrics of seed 0 at threshold 0, which belong to no model of its parameters.
        assert point.seeds == [1, 2]
        assert point.kept.value == rule_of(split, threshold or 0.0)["kept"]
        assert point.pruned.value == (0 if split == "full" else FULL_ROWS - point.kept.value)
        for benchmark, cell in point.cells.items():
            values = [accuracy(split, benchmark, threshold or 0.0, seed) for seed in (1, 2)]
            assert cell.mean == pytest.approx(sum(values) / 2)
            assert (cell.lowest.value, cell.highest.value) == (min(values), max(values))
            # There is an interval over both seeds only if a revision compared both.
            assert (cell.accuracy is None) == (threshold == 0.05)
            assert (cell.minus_control is None) == (threshold == 0.05 or split != "sketch-pruned")
            if cell.accuracy is not None:
                assert cell.accuracy.value == pytest.approx(cell.mean)
                assert cell.accuracy.low == pytest.approx(cell.mean - 0.07, abs=1e-6)
            if cell.minus_control is not None:
                assert cell.minus_control.low == -0.2 - threshold
    assert [len(sweep.line(split)) for split in SPLITS] == [1, 1, 3, 3, 3]


def test_another_study_is_left_out_by_name(sweep: Sweep, here: Path) -> None:
    assert sweep.revisions == ["second", "first", "third-1", "third-2"]
    assert sweep.left_out == ["other: embedder.seed is 1 instead of 0"]
    assert read("other").thresholds == [0.02]
    assert read("other", "first").left_out == ["first: embedder.seed is 0 instead of 1"]


def test_revisions_may_train_other_splits(here: Path) -> None:
    sweep = read("fewer", "first")
    assert sweep.left_out == []
    assert [len(sweep.line(split)) for split in SPLITS] == [1, 1, 2, 1, 1]
    assert all(point.seeds == [1, 2] for point in sweep.points.values())


class Numbers(HTMLParser):
    """The `data` elements of a page with their texts, and all addresses and other elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.numbers: list[tuple[dict[str, Any], str]] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self._open: list[dict[str, Any] | None] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(value) for name, value in attributes if name in ("href", "src")]
        if tag not in ("meta", "link", "img"):
            own = dict(attributes)
            skipped = tag == "style" or {"name", "verbatim"} & set((own.get("class") or "").split())
            self._open.append({"tag": tag, **own, "skipped": skipped})

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "link", "img"):
            self._open.pop()

    def handle_data(self, text: str) -> None:
        last = self._open[-1] if self._open else None
        if last is not None and last["tag"] == "data":
            self.numbers.append((last, text))
        elif not any(element and element["skipped"] for element in self._open):
            self.texts.append(text)


def test_every_number_of_the_page_is_a_metric_of_a_revision(sweep: Sweep, here: Path) -> None:
    page = Numbers(render(sweep, []))
    assert len(page.numbers) > len(sweep.points) * (1 + 3 * len(BENCHMARKS))
    for element, text in page.numbers:
        key = element["data-key"].removeprefix("mean of ")
        values = []
        for place in element["data-file"].split("; "):
            content = json.loads(run(here, "git", "show", place))
            # Full has no such metric, because nothing is pruned from it.
            values.append(content.get(key, 0 if key == "dropped/pruned" else None))
        assert (len(values) == 2) == element["data-key"].startswith("mean of ")
        value = sum(values) / len(values)
        assert float(element["value"]) == pytest.approx(value, abs=1e-12)
        # A mean over seeds is rounded like the numbers in files, which have nine significant digits.
        value = float(f"{value:.9g}") if isinstance(value, float) else value
        expected = {"percent": f"{100 * value:.1f}", "points": f"{100 * value:+.1f}", "count": f"{value:,.0f}"}
        assert text == expected[element["data-format"]].replace("-", "\N{MINUS SIGN}")
    # The page has no other digits, except for the paper's threshold and the word top-1.
    rest = "".join(page.texts).replace("The paper's threshold is 0.", "")
    assert not [character for character in rest.replace("top-1", "") if character.isdigit()]


def test_the_folder_needs_nothing_else_and_runs_nothing(sweep: Sweep, tmp_path: Path) -> None:
    sweep.left_out.append("<script>alert(1)</script>")
    out = tmp_path / "sweep"
    write_sweep(sweep, out)
    files = {path.name for path in out.iterdir()}
    assert files == {"index.html", "sweep.csv", "sweep-val.png", "sweep-sketch.png"}
    text = (out / "index.html").read_text()
    page = Numbers(text)
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)" in text
    assert set(page.addresses) - {"data:,"} == files - {"index.html"}
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    write_sweep(sweep, out)
    assert first == {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_table_has_every_number(sweep: Sweep, tmp_path: Path) -> None:
    write_sweep(sweep, tmp_path / "sweep")
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(sweep.points) * len(BENCHMARKS)
    for row in rows:
        threshold = float(row["threshold"]) if row["threshold"] else 0.0
        assert bool(row["threshold"]) == (row["split"] in OF_THRESHOLD)
        values = [accuracy(row["split"], row["benchmark"], threshold, seed) for seed in (1, 2)]
        found = [float(row[name]) for name in ("mean", "lowest_seed", "highest_seed")]
        assert found == pytest.approx([sum(values) / 2, min(values), max(values)])
        assert row["seeds"] == "1 2"
        assert int(row["rows_kept"]) == rule_of(row["split"], threshold)["kept"]
        used = (row["split"], row["benchmark"]) == ("sketch-pruned", "sketch")
        assert row["benchmark_was"] == ("used by the rule" if used else "held out")
        assert bool(row["accuracy_low"]) == (threshold != 0.05)


def test_controls_have_their_split_s_colour_and_looks_of_their_own(sweep: Sweep) -> None:
    found = sweep_styles(sweep)
    assert list(found) == list(OF_THRESHOLD)
    assert len({look.colour for look in found.values()}) == 1
    assert len(set(found.values())) == 3
    assert [look.filled for look in found.values()] == [True, False, False]


def test_where_only_controls_were_trained_they_have_figures(here: Path, tmp_path: Path) -> None:
    if not run(here, "git", "tag", "--list", "controls-1"):
        run(here, "git", "checkout", "--quiet", "--detach")
        runs: dict[str, Any] = {"full": {}, "sketch-pruned-control": {}, "sketch-pruned-matched": {}}
        for number, threshold in enumerate((0.0, 0.05)):
            add(here, f"controls-{number}", threshold, [1, 2], runs=runs)
    sweep = read("controls-0", "controls-1")
    assert sweep.splits == ["sketch-pruned-control", "sketch-pruned-matched"]
    found = sweep_styles(sweep)
    assert [look.filled for look in found.values()] == [False, False]
    assert len(set(found.values())) == 2
    write_sweep(sweep, tmp_path / "sweep")
    for spec in sweep_figures(sweep):
        canvas = Figure(figsize=spec.size)
        spec.draw(canvas)
        # The controls leave out as many rows as their split, which is missing here.
        (line, *_) = canvas.axes[1].get_lines()
        assert line.get_ydata().tolist() == [FULL_ROWS - rule_of("sketch-pruned", t)["kept"] for t in (0.0, 0.05)]


def test_the_caption_says_what_bars_are(here: Path) -> None:
    assert (
        "Bars and bands are 95% intervals over seeds and images." in sweep_figures(read("first", "second"))[0].caption
    )
    assert (
        "else the range from the worst seed to the best seed"
        in sweep_figures(read("first", "third-1", "third-2"))[0].caption
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("nosuch",), "nosuch: is not a revision"),
        (("",), "'': is not a revision"),
        (("no-number",), r"no-number:metrics/evaluate/full-1\.json: not JSON \(NaN is not a number\)"),
        (("second", "again"), r"again:metrics/evaluate/full-1\.json: zero_shot/val/top1 is 0\.9, but .* in second:"),
        (("less",), r"less:metrics/evaluate/reference-only-3\.json: does not exist"),
        (
            ("untrained",),
            r"no trained split depends on the threshold \(revisions with these parameters: 1\); train an imagenet-like split$",
        ),
    ],
)
def test_what_cannot_be_shown_ends_in_a_line(folder: Path, monkeypatch, names, message) -> None:
    monkeypatch.chdir(folder)
    if not run(folder, "git", "tag", "--list", "again"):
        run(folder, "git", "checkout", "--quiet", "second")
        for name in ("again", "less", "untrained", "no-number"):
            file = folder / "metrics" / "evaluate" / "full-1.json"
            content = params(0.02, [1, 2])
            if name == "again":
                file.write_text(json.dumps(json.loads(file.read_text()) | {"zero_shot/val/top1": 0.9}))
            elif name == "no-number":
                file.write_text('{"zero_shot/val/top1": NaN, "zero_shot/sketch/top1": 0.5}')
            elif name == "less":
                content["repeats"]["seeds"] = [3]
                file.with_name("full-3.json").write_text(file.read_text())
            else:
                content["runs"] = {"full": {}, "reference-only": {}}
            (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
            run(folder, "git", "commit", "--quiet", "--all", "--allow-empty", "--message", name)
            run(folder, "git", "add", "--all")
            run(folder, "git", "commit", "--quiet", "--amend", "--no-edit", "--allow-empty")
            run(folder, "git", "tag", name)
            run(folder, "git", "checkout", "--quiet", "second")
    with pytest.raises(SimgapError, match=message):
        read(*names)


def test_in_what_revisions_differ(here: Path) -> None:
    from simgap.studies.sweep.read import _difference

    def parsed(**runs: Any) -> Any:
        content = params(0.0, [1])
        content["runs"] = {"full": {}, "sketch-pruned": {}, **runs}
        return parse_params(yaml.safe_dump(content), "params.yaml")

    assert _difference(parsed(), parsed()) is None
    # Training another split changes no other model. Training a split in another way changes its own models.
    assert _difference(parsed(), parsed(**{"reference-only": {"epochs": 2.0}})) is None
    found = _difference(parsed(**{"reference-only": {}}), parsed(**{"reference-only": {"epochs": 2.0}}))
    assert found == "runs.reference-only.epochs is 2.0 instead of nothing"


STAGE = """stages:
  study:
    cmd: python study.py
    params: [threshold, repeats]
    metrics: [{metrics: {cache: false}}]
"""
STUDY = """import sys
from pathlib import Path
sys.path[:0] = TESTS
import yaml
from revisions import write_metrics
params = yaml.safe_load(Path("params.yaml").read_text())
write_metrics(Path(), params["threshold"], params["repeats"]["seeds"])
"""


@pytest.mark.slow
def test_queued_experiments_become_a_page(tmp_path: Path) -> None:
    folder = repository(tmp_path / "study")
    tests = [str(REPOSITORY / "tests"), str(REPOSITORY), str(REPOSITORY / "src")]
    (folder / "study.py").write_text(STUDY.replace("TESTS", repr(tests)))
    (folder / "dvc.yaml").write_text(STAGE)
    (folder / "params.yaml").write_text(yaml.safe_dump(params(0.0, [0]), sort_keys=False))
    run(folder, "dvc", "repro")
    commit(folder)
    environment = {**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY / "src")}

    def simgap(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "simgap.cli", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    nothing = simgap("sweep")
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("error: REVISIONS: this commit has no experiment;")
    queue = ["dvc", "exp", "run", "--queue", "-S", "threshold=0.0,0.02", "-S"]
    run(folder, *queue, "repeats.seeds=[1,2]")
    run(folder, *queue, "repeats.seeds=[3],[4]")
    run(folder, "dvc", "exp", "run", "--run-all", "--jobs", "1")
    made = simgap("sweep")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("report/sweep/index.html: thresholds 0, 0.02 from the revisions ")
    with (folder / "report" / "sweep" / "sweep.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["seeds"] for row in rows} == {"1 2 3 4"}
    for row in rows:
        values = [accuracy(row["split"], row["benchmark"], float(row["threshold"] or 0), seed) for seed in (1, 2, 3, 4)]
        assert float(row["mean"]) == pytest.approx(sum(values) / 4)
