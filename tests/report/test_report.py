from __future__ import annotations

import json
import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from perf.drawn_study import MARGIN, read_study, write_study
from simgap.report import sentences
from simgap.report.figures.all import figure_specs
from simgap.report.figures.plots import POINTS, apart, cumulative, list_matrix
from simgap.report.figures.pruning import CLASSES, annotated_shares, class_shares
from simgap.report.figures.style import FigureSpec, split_styles
from simgap.report.inputs import ReportInputs
from simgap.report.page import render, write_report
from simgap.report.tables import accuracy_table
from simgap.store.study import Study

HOSTILE = "<script>document.title = 'run'</script>\"><img src=x onerror=\"document.title = 'run'\">"
MINUS = "\N{MINUS SIGN}"
# Digits of the page itself: the level of the intervals, and the word top-1.
FIXED = {"95%", "top-1"}
# Names of the study and captions may contain digits.
NAMES = {"name", "verbatim"}
EMPTY = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """The content of a page: elements with their attributes, `data` elements with their texts, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self.verbatim: list[str] = []
        self.scripts: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self._open.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self._open.pop()[0] == tag

    def handle_data(self, text: str) -> None:
        tags = [tag for tag, _ in self._open]
        if tags[-1:] == ["data"]:
            self.data.append((self._open[-1][1], text))
        elif tags[-1:] == ["script"]:
            self.scripts.append(text)
        elif any(NAMES & set((attributes.get("class") or "").split()) for _, attributes in self._open):
            self.verbatim.append(text)
        elif "style" not in tags and text.strip():
            self.texts.append(text.strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def inputs(folder: Path) -> ReportInputs:
    study = write_study(folder, splits=6, benchmarks=3, seeds=2, queries=60, caption=HOSTILE).study
    names = folder / "data" / "benchmarks" / "val" / "classnames.txt"
    names.write_text(names.read_text().replace("class 0\n", "a $dollar {0} <b>\n"))
    again = read_study(folder, study.splits, study.benchmarks, 2)
    write_report(again, MARGIN, folder / "report" / "index.html", folder / "report" / "figures")
    return again


@pytest.fixture(scope="module")
def study(inputs: ReportInputs) -> Study:
    return inputs.study


@pytest.fixture(scope="module")
def page(folder: Path, inputs: ReportInputs) -> Page:
    return Page((folder / "report" / "index.html").read_text())


def at(content: Any, key: str) -> Any:
    """Look a key up, as the name of a metric or step by step."""
    if isinstance(content, dict) and key in content:
        return content[key]
    for part in key.split("/"):
        content = content[int(part) if isinstance(content, list) else part]
    return content


def shown(value: float, form: str) -> str:
    """Format a number in another way than the page does."""
    if form == "count":
        assert isinstance(value, int)
        digits = str(value)
        return ",".join([digits[: len(digits) % 3 or 3], *re.findall("...", digits[len(digits) % 3 or 3 :])])
    scale, places = {"percent": (100, 1), "points": (100, 1), "share": (100, 0), "similarity": (1, 3)}.get(
        form, (1, None)
    )
    text = ("%g" if places is None else f"%.{places}f") % (scale * value)
    if form == "points" and not text.startswith("-"):
        text = f"+{text}"
    return text.replace("-", MINUS)


def test_every_number_is_traced_to_a_metrics_file(folder: Path, page: Page) -> None:
    files = {}
    keys = set()
    for attributes, text in page.data:
        file, key = attributes["data-file"], attributes["data-key"]
        assert file is not None
        assert key is not None
        if file == "params.yaml":
            expected = {"compare/equivalence_margin": MARGIN}[key]
        else:
            assert Path(file).is_relative_to(folder)
            content = files.setdefault(file, json.loads(Path(file).read_text()))
            expected = at(content, key)
        assert float(str(attributes["value"])) == expected
        assert text == shown(expected, str(attributes["data-format"]))
        keys.add((Path(file).stem, key))
    assert {Path(file).stem for file in files} >= {"compare", "leaks", "full", "quarter", "val", "full-0", "galleries"}
    assert ("compare", "pruned-0/val/gap_explained/low") in keys
    assert ("compare", "quarter/sketch/minus_full") in keys
    # The page has no other number.
    for text in page.texts:
        for fixed in FIXED:
            text = text.replace(fixed, "")
        assert not re.search(r"\d", text), text


def test_no_address_outside_the_folder_is_referenced(folder: Path, page: Page) -> None:
    html = (folder / "report" / "index.html").read_text()
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    referenced = set()
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form", "video", "audio", "source")
        for name in ("src", "href", "srcset", "poster", "action", "data"):
            address = attributes.get(name)
            if address and address != "data:,":
                referenced.add(address)
    anchors = {address for address in referenced if address.startswith("#")}
    assert {address[1:] for address in anchors} <= {attributes.get("id") for _, attributes in page.elements}
    files = referenced - anchors
    root = folder / "report"
    for address in files:
        assert not re.match(r"[a-z]+:|//|/", address)
        assert (root / address).resolve().is_relative_to(root.resolve())
        assert (root / address).is_file()
    assert {f"figures/{file.name}" for file in (root / "figures").iterdir()} <= files


def test_a_caption_with_a_script_is_shown_not_run(page: Page) -> None:
    assert len(page.scripts) == 1
    assert "document.title" not in page.scripts[0]
    assert sum(text.strip() == HOSTILE for text in page.verbatim) >= 10
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    alts = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert all(alts)
    assert any(HOSTILE in str(alt) for alt in alts)
    policy = next(attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    assert policy is not None
    assert "'unsafe" not in policy


def test_the_same_study_gives_the_same_bytes(folder: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    write_report(inputs, MARGIN, tmp_path / "index.html", tmp_path / "figures")
    first = {file.name: file.read_bytes() for file in (folder / "report" / "figures").iterdir()}
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "figures").iterdir()}
    assert (tmp_path / "index.html").read_bytes() == (folder / "report" / "index.html").read_bytes()
    assert all(b"matplotlib" not in content.lower() for content in first.values())


def test_cells_are_marked_and_can_be_sorted(study: Study, page: Page) -> None:
    cells = [attributes for tag, attributes in page.elements if tag == "td" and "data-accuracy" in attributes]
    places = [(split, benchmark) for split in study.splits for benchmark in study.benchmarks]
    assert len(cells) == len(places)
    for (split, benchmark), cell in zip(places, cells, strict=True):
        assert (cell.get("class") == "used") == (benchmark in study.splits[split].benchmarks)
        for attribute, key in (("accuracy", "accuracy"), ("control", "minus_control"), ("full", "minus_full")):
            value = cell.get(f"data-{attribute}")
            assert (None if value is None else float(value)) == study.compared.get(f"{split}/{benchmark}/{key}")
    marks = [text for text in page.texts if text in ("used", "held out")]
    # One more is in the legend.
    assert marks.count("used") == sum(len(study.splits[split].benchmarks) for split in study.splits) + 1


def text_of(markup: str) -> str:
    return re.sub(r"<[^>]+>", "", markup)


def with_results(study: Study, **results: tuple[float, float, float] | str) -> None:
    """Put estimates and verdicts of pruned-0 on val into the comparison."""
    for key, found in results.items():
        place = f"pruned-0/val/{key}"
        if isinstance(found, str):
            study.compared[place] = found
        else:
            study.compared |= dict(zip((place, f"{place}/low", f"{place}/high"), found, strict=True))


@pytest.mark.parametrize(
    ("interval", "answer"),
    [
        ((0.61, 0.52, 0.7), "More than half of the gap comes from the pruned rows."),
        ((0.2, 0.1, 0.45), "Less than half of the gap comes from the pruned rows. Most of the robustness stays."),
        ((0.61, 0.42, 0.8), "It is inconclusive whether the pruned rows explain more than half of the gap."),
        ((0.2, -0.1, 0.55), "It is inconclusive whether the pruned rows explain more than half of the gap."),
    ],
)
def test_what_is_said_of_a_share(tmp_path: Path, interval: tuple[float, float, float], answer: str) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=2, seeds=1, queries=40)
    study = inputs.study
    with_results(study, gap_explained=interval)
    study.compared |= dict.fromkeys([f"pruned-0-control/val/gap_explained{end}" for end in ("", "/low", "/high")], 0.09)
    value, low, high = (f"{100 * figure:.0f}".replace("-", MINUS) for figure in interval)
    assert text_of(sentences.explained(study, "pruned-0", "val")) == (
        f"Pruning the rows that are closer to val than the reference is (pruned-0) explains {value}% [{low}, {high}] of the gap "
        f"between full and reference-only on val. Leaving out as many random rows (pruned-0-control) explains 9% [9, 9]. {answer}"
    )


def test_controls_of_a_split_are_toldapart(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=6, benchmarks=2, seeds=1, queries=40)
    study = inputs.study
    assert study.controls_of("pruned-0") == ["pruned-0-control", "pruned-0-matched"]
    with_results(study, gap_explained=(0.61, 0.52, 0.7))
    for control, share in (("control", 0.09), ("matched", 0.12)):
        keys = [f"pruned-0-{control}/val/gap_explained{end}" for end in ("", "/low", "/high")]
        study.compared |= dict.fromkeys(keys, share)
    study.compared |= {"pruned-0/val/verdict_control": "lower", "pruned-0/sketch/verdict_control": "inconclusive"}
    of_matched = {f"pruned-0/{name}/verdict/pruned-0-matched": "equivalent" for name in ("val", "sketch")}
    study.compared |= of_matched
    assert (
        " Leaving out as many random rows (pruned-0-control) explains 9% [9, 9]. Leaving out as many random rows of each "
        "class (pruned-0-matched) explains 12% [12, 12]. More than half"
    ) in text_of(sentences.explained(study, "pruned-0", "val"))
    assert [text_of(sentence) for sentence in sentences.against_controls(study, "pruned-0")] == [
        "Compared with leaving out as many random rows (pruned-0-control), the accuracy of pruned-0 is lower on val; "
        "inconclusive on sketch (held out).",
        "Compared with leaving out as many random rows of each class (pruned-0-matched), the accuracy of pruned-0 is "
        "equivalent on val and sketch (held out).",
    ]
    (row,) = [row for row in accuracy_table(study) if row["split"] == "pruned-0"]
    assert row["controls"] == ["pruned-0-control", "pruned-0-matched"]
    assert [what for what, _, _ in row["cells"][0].differences] == ["control", "same by class", "full"]
    found = split_styles(inputs)
    assert len({found[name] for name in ("pruned-0", "pruned-0-control", "pruned-0-matched")}) == 3
    assert found["pruned-0-matched"].colour == found["pruned-0"].colour


def test_an_undefined_share_is_said_to_be_inconclusive(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=2, seeds=1, queries=40)
    study = inputs.study
    for key in [key for key in study.compared if "sketch/gap_explained" in key]:
        del study.compared[key]
    said = " ".join(map(text_of, sentences.claim_a(study)))
    assert "The share is undefined on sketch. The interval of the gap between full and reference-only does not" in said
    assert "Claim A is inconclusive on this benchmark" in said
    names = {spec.name for spec in figure_specs(inputs, MARGIN, 0.9)}
    assert {"claim-a", "claim-a-gap"} <= names
    for key in [key for key in study.compared if "gap_explained" in key]:
        del study.compared[key]
    assert "claim-a" not in {spec.name for spec in figure_specs(inputs, MARGIN, 0.9)}
    assert "inconclusive on these benchmarks" in " ".join(map(text_of, sentences.claim_a(study)))


@pytest.mark.parametrize(
    ("verdicts", "answer"),
    [
        (("equivalent", "higher"), "The split matches full on every benchmark."),
        (("equivalent", "lower"), "The split does not match full."),
        (("equivalent", "inconclusive"), "It is inconclusive whether the split matches full."),
    ],
)
def test_what_is_said_of_a_small_split(tmp_path: Path, verdicts: tuple[str, str], answer: str) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=2, seeds=1, queries=40)
    study = inputs.study
    for benchmark, verdict in zip(study.benchmarks, verdicts, strict=True):
        study.compared[f"quarter/{benchmark}/verdict_full"] = verdict
    (said,) = map(text_of, sentences.claim_b(study, MARGIN))
    assert said.startswith(
        "quarter keeps 2,500 of 10,000 rows. Compared with full, with a margin of 5.0 points, the accuracy of the split is "
    )
    # Only val was used to choose the split.
    assert f"{verdicts[0]} on val" in said
    assert f"{verdicts[1]} on sketch (held out)" in said
    assert said.endswith(answer)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.02, 0.01, 0.03), "Copied images raise the accuracy of full"),
        ((-0.02, -0.03, -0.01), "Copied images lower the accuracy of full"),
        ((0.02, -0.01, 0.03), "It is inconclusive whether copied images change the accuracy of full"),
    ],
)
def test_what_is_said_of_leaks(tmp_path: Path, interval: tuple[float, float, float], words: str) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=1, seeds=1, queries=40)
    study = inputs.study
    study.compared |= dict(
        zip([f"full/val/added_by_copies{end}" for end in ("", "/low", "/high")], interval, strict=True)
    )
    study.read("leaks/leaks")["recall"] = 0.5
    said = [text_of(sentence) for sentence in sentences.leaks(study)]
    assert "calibrated on the annotated copies" in said[0]
    assert words in said[1]
    assert len(said) == 2
    study.read("leaks/leaks")["recall"] = 0.49
    assert "inconclusive how many images leaked" in text_of(sentences.leaks(study)[1])
    study.read("leaks/leaks").update({"calibrated": False, "recall": 0.9, "val/copied": 40})
    for end in ("", "/low", "/high"):
        del study.compared[f"full/val/added_by_copies{end}"]
    said = [text_of(sentence) for sentence in sentences.leaks(study)]
    assert "a parameter" in said[0]
    assert said[1:] == ["Every image of val counts as copied."]
    study.read("leaks/leaks")["val/copied"] = 0
    assert text_of(sentences.leaks(study)[-1]) == "No image of val counts as copied."


def test_which_splits_the_reference_joined(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=1, seeds=1, queries=20)
    study = inputs.study
    assert sentences.joined(study) == "The models of every split were also trained on the reference."
    for split in list(study.splits)[1:]:
        study.splits[split] = replace(study.splits[split], reference_rows=False)
    assert text_of(sentences.joined(study)) == "The models of full were also trained on the reference."
    study.splits["full"] = replace(study.splits["full"], reference_rows=False)
    assert text_of(sentences.joined(study)) == "The models of no split were also trained on the reference."


def test_cautions(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=1, seeds=1, queries=40)
    study = inputs.study
    study.read("prune/pruned-0")["degenerate"] = True
    shares = {f"pruned-0/pruned_share/style/{style}": 1.0 for style in ("art", "pen, ink", "pen on paper", "sketch")}
    study.read("ground-truth/annotated").update(shares | {"pruned-0/domains_removed": "art, pen, ink, sketch"})
    assert [text_of(sentence) for sentence in sentences.cautions(inputs)] == [
        "The study has 1 training seed. Intervals are over images only.",
        "pruned-0 is degenerate: it keeps only 50.0% of full, which is too little to represent the pool.",
        "pruned-0 lacks nearly all rows of a style (art, pen, ink and sketch). "
        "Pruning removed a whole domain, not only single samples.",
    ]
    assert '<span class="name">pen, ink</span>' in sentences.cautions(inputs)[-1]


@pytest.mark.parametrize("kept", [("full",), ("reference-only", "quarter"), ("pruned-0",)])
def test_a_study_that_lacks_something_has_a_page(tmp_path: Path, kept: tuple[str, ...]) -> None:
    whole = write_study(tmp_path, splits=5, benchmarks=2, seeds=1, queries=40)
    benchmarks = whole.study.benchmarks
    for table in ("few_shot", "lines"):
        (tmp_path / "report" / "tables" / f"{table}.csv").unlink()
    inputs = ReportInputs(whole.folders, list(kept), [], benchmarks, [0], [], "val")
    for name in benchmarks:
        inputs.galleries["benchmarks"][name] = {"queries": []}
    inputs.galleries["duplicates"] = []
    compared = inputs.study.compared
    if "full" not in kept:
        for key in [key for key in compared if "minus_full" in key or "verdict_full" in key or "copies" in key]:
            del compared[key]
    write_report(inputs, MARGIN, tmp_path / "index.html", tmp_path / "figures")
    Page((tmp_path / "index.html").read_text())
    assert (tmp_path / "figures" / "training.png").is_file()
    assert not (tmp_path / "figures" / "few-shot-val.png").exists()


def test_every_split_has_a_look_of_its_own(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=22, benchmarks=3, seeds=1, queries=20)
    study = inputs.study
    found = split_styles(inputs)
    assert set(found) == set(study.splits)
    assert len(set(found.values())) == len(found)
    for name in inputs.pruned:
        control = study.control_of(name)
        assert control is not None
        assert found[control].colour == found[name].colour
        assert not found[control].filled


def test_the_figure_of_marked_classes_shows_a_bounded_number(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=2, seeds=1, queries=20)
    study = inputs.study
    shares = {
        f"{split}/pruned_share/class/c{number}": number / 100 for split in study.splits for number in range(CLASSES + 5)
    }
    inputs.ground_truths = ["toy"]
    inputs.ground_truth = lambda _: shares
    (spec,) = annotated_shares(inputs)
    assert (
        spec.caption
        == f"Share of the pool rows that each split leaves out, by class: the {CLASSES} with the largest pruned share."
    )
    figure = Figure(figsize=spec.size)
    spec.draw(figure)
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert sorted(names) == sorted(f"c{number}" for number in range(5, CLASSES + 5))


def test_names_that_figures_cannot_draw_are_numbers_there_and_stand_in_the_caption(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=1, seeds=1, queries=40)
    study = inputs.study
    dog, cat, cafe = (
        "\N{CJK UNIFIED IDEOGRAPH-72AC}",
        "a \N{CJK UNIFIED IDEOGRAPH-732B}",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    )
    count = len(inputs.classnames["val"])
    inputs.classnames["val"] = [*[dog, cafe, cat] * count][:count]
    (of_nearest,) = class_shares(inputs)
    names = {"style": ("photo", dog), "class": (cafe, "cat")}
    shares = {
        f"{split}/pruned_share/{kind}/{name}": 0.5 for split in study.splits for kind in names for name in names[kind]
    }
    inputs.ground_truths = ["toy"]
    inputs.ground_truth = lambda _: shares
    of_style, of_class = annotated_shares(inputs)

    def drawn(spec: FigureSpec) -> set[str]:
        figure = Figure(figsize=spec.size)
        spec.draw(figure)
        with warnings.catch_warnings():
            # Matplotlib warns if its font lacks a glyph.
            warnings.simplefilter("error")
            figure.savefig(tmp_path / "figure.png")
        axes = figure.axes[0]
        return {label.get_text() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())}

    assert {"(1)", "photo"} <= drawn(of_style)
    assert of_style.caption.endswith(f"by style; (1) is {dog}.")
    assert {cafe, "cat"} <= drawn(of_class)
    assert of_class.caption.endswith("by class.")
    labels = drawn(of_nearest)
    assert cafe in labels
    numbered = [label for label in labels if label.startswith("(")]
    assert numbered
    for label in numbered:
        assert f"{label} is {dog}" in of_nearest.caption or f"{label} is {cat}" in of_nearest.caption


def test_a_second_random_control_has_a_look_of_its_own(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=2, seeds=1, queries=20)
    study = inputs.study
    study.splits["another"] = study.splits["pruned-0-control"]
    found = split_styles(inputs)
    assert len(set(found.values())) == len(found)
    assert found["another"].colour == found["pruned-0"].colour


def test_a_second_random_control_has_a_difference_and_a_sentence(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=6, benchmarks=2, seeds=1, queries=40)
    study = inputs.study
    rules = tmp_path / "metrics" / "prune"
    shutil.copy(rules / "pruned-0-control.json", rules / "another.json")
    study.splits["another"] = study.rule("another")
    for name in study.benchmarks:
        for end in ("", "/low", "/high"):
            study.compared[f"another/{name}/accuracy{end}"] = 0.5
            study.compared[f"pruned-0/{name}/minus/another{end}"] = 0.01
        study.compared[f"pruned-0/{name}/verdict/another"] = "equivalent"
    assert study.controls_of("pruned-0") == ["pruned-0-control", "pruned-0-matched", "another"]
    (row,) = [row for row in accuracy_table(study) if row["split"] == "pruned-0"]
    differences = {text_of(what): text_of(text) for what, text, _ in row["cells"][0].differences}
    assert list(differences) == ["control", "same by class", "control another", "full"]
    assert differences["control another"] == "+1.0 [+1.0, +1.0]"
    assert text_of(sentences.against_controls(study, "pruned-0")[2]) == (
        "Compared with leaving out as many random rows (another), the accuracy of pruned-0 is equivalent on val and "
        "sketch (held out)."
    )


def test_a_split_of_which_a_rule_left_nothing_is_not_taken_for_the_reference_only(tmp_path: Path) -> None:
    inputs = write_study(tmp_path, splits=5, benchmarks=2, seeds=1, queries=20)
    study = inputs.study
    assert study.reference_only() == "reference-only"
    study.splits["pruned-0"] = replace(study.splits["pruned-0"], kept=0)
    study.splits = dict(sorted(study.splits.items(), key=lambda item: item[0] != "pruned-0"))
    assert study.reference_only() == "reference-only"
    del study.splits["reference-only"]
    assert study.reference_only() == "pruned-0"


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_places_that_are_alike_are_drawnapart(places: list[int]) -> None:
    moved = apart({str(number): place for number, place in enumerate(places)})
    assert set(moved) == {str(number) for number in range(len(places))}
    step = 0.018 * max(places)
    for number, place in enumerate(places):
        assert abs(moved[str(number)] - place) <= 2 * len(places) * step + 1e-6
    if max(places):
        same = [moved[str(number)] for number, place in enumerate(places) if place == places[0]]
        assert len(set(same)) == len(same)


@pytest.mark.parametrize("count", [1, 7, POINTS, 5 * POINTS + 3])
def test_a_distribution_is_drawn_as_it_is(count: int) -> None:
    values = np.random.default_rng(count).integers(0, 50 * count, count).astype(np.float32)
    x, share = cumulative(values)
    assert len(x) == min(count, POINTS)
    assert (x[0], x[-1], share[-1]) == (values.min(), values.max(), 1)
    for place, found in zip(x[::13], share[::13], strict=True):
        assert (values < place).mean() < found <= (values <= place).mean() + 1e-12


def test_lists_of_neighbours_may_be_shorter() -> None:
    column = pa.chunked_array([[[0.5, 0.25], [0.75]], [[], [1.0, 0.0]]], pa.list_(pa.float32()))
    found = list_matrix(column)
    assert found.dtype == np.float32
    assert np.array_equal(found, [[0.5, 0.25], [0.75, np.nan], [np.nan, np.nan], [1, 0]], equal_nan=True)
    assert list_matrix(pa.chunked_array([[[], []]], pa.list_(pa.float32()))).shape == (2, 0)


SORT = """<script>
const heads = document.querySelectorAll("#accuracy th button");
const column = () => [...document.querySelectorAll("#accuracy tbody th > .name")].map((e) => e.textContent).join(" ");
heads[1].click(); document.body.dataset.falling = column();
heads[1].click(); document.body.dataset.rising = column();
document.getElementById("sort-by").value = "full"; heads[2].click(); document.body.dataset.full = column();
</script>"""


@pytest.mark.slow
def test_in_a_browser_the_table_sorts_and_no_caption_runs(folder: Path, study: Study, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")

    def dom(page: Path) -> str:
        command = [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        command += ["--dump-dom", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    page = folder / "report" / "index.html"
    assert "<title>Train-test similarity: splits compared</title>" in dom(page)
    html = page.read_text()
    # The page's policy forbids all scripts that it does not name, so this one does not run.
    meddled = page.with_name("meddled.html")
    meddled.write_text(html.replace("</body>", f"{SORT}</body>"))
    assert "data-falling" not in dom(meddled)
    meddled.write_text(re.sub(r"<meta http-equiv[^>]*>", "", html).replace("</body>", f"{SORT}</body>"))
    found = dom(meddled)
    meddled.unlink()

    def order(name: str) -> list[str]:
        attribute = re.search(f'data-{name}="([^"]*)"', found)
        assert attribute is not None
        return attribute[1].split()

    by_size = sorted(study.splits, key=lambda split: study.splits[split].kept)
    assert [study.splits[split].kept for split in order("rising")] == [study.splits[split].kept for split in by_size]
    assert [study.splits[split].kept for split in order("falling")] == [
        study.splits[split].kept for split in by_size[::-1]
    ]
    others = [split for split in study.splits if split != "full"]
    expected = sorted(others, key=lambda split: -study.compared[f"{split}/val/minus_full"])
    # Full has no difference to itself, and comes last.
    assert order("full") == [*expected, "full"]


def test_a_page_is_rendered_without_figures(inputs: ReportInputs) -> None:
    assert '<img src="figures/' not in render(inputs, [], MARGIN)
