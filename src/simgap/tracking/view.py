"""A saved view of MLflow's page of runs: threshold against accuracy, a chart for each benchmark, a colour for each split."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from simgap.params.schema import Params

# MLflow's names for the tag of an experiment that holds a view, and for the tag of a run that holds its colour.
VIEW_TAG = "mlflow.sharedViewState."
COLOUR_TAG = "mlflow.runColor"
# Okabe and Ito's without their yellow, which is pale on white, and with grey and brown.
COLOURS = ("#000000", "#8c8c8c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f4f24")
# The share of white in the colour of a control, and of one of the same composition.
TINTS = {"random": 0.5, "matched": 0.75}


class View(NamedTuple):
    """A saved view: its key, as an address has it, and the value of the experiment's tag that holds it."""

    key: str
    value: str


def colours(params: Params) -> dict[str, str]:
    """Give the colour of every trained split, of all its thresholds and seeds; a control's is a pale one of its split's."""
    rules = params.prune.rules()
    tints = {name: tint for rule, tint in TINTS.items() for name in rules[rule]}
    sizes = {name: rules[rule][name].size_of for rule in TINTS for name in rules[rule]}
    controls = {split: sizes[split] for split in params.runs if sizes.get(split, "full") != "full"}
    own = [split for split in dict.fromkeys([*params.runs, *controls.values()]) if split not in controls]
    found = {split: COLOURS[place % len(COLOURS)] for place, split in enumerate(own)}
    for split, controlled in controls.items():
        # A control of a control has the grey of none.
        strong = bytes.fromhex(found.get(controlled, COLOURS[1])[1:])
        found[split] = "#" + bytes(round(part + tints[split] * (255 - part)) for part in strong).hex()
    return found


def accuracy_view(params: Params, created: int) -> View:
    """Give the view of a study's runs.

    Runs on other data stay out of it: a benchmark of theirs may have the name of one of these.

    Args:
        params: the params file.
        created: milliseconds since 1970, which MLflow shows.
    """
    benchmarks = ", ".join(params.benchmarks.names)
    runs = f'params.`pool.path` = "{params.pool.path}" AND params.`benchmarks.names` = "{benchmarks}"'
    section = {"uuid": "accuracy", "name": "Accuracy by threshold", "display": True, "columns": 2, "cardHeight": 320}
    charts = [
        {
            "uuid": name,
            "type": "SCATTER",
            "metricSectionId": section["uuid"],
            "runsCountToCompare": 100,
            "xaxis": {"key": "threshold", "type": "PARAM"},
            "yaxis": {"key": f"zero_shot/{name}/top1", "type": "METRIC"},
        }
        for name in params.benchmarks.names
    ]
    state = {
        "searchFilter": runs,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [section],
        # Else sections of other metrics come before it, by the alphabet.
        "isAccordionReordered": True,
    }
    name = f"accuracy by threshold: {params.pool.path}"
    saved = {"name": name, "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    return View(hashlib.sha256(runs.encode()).hexdigest()[:16], json.dumps(saved))
