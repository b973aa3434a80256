"""Save a view of the runs in MLflow.

The view has one chart for each benchmark. The chart shows how accuracy depends on the threshold. Each split has its own
colour.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from simgap.params.schema import Params

# MLflow stores a view in a tag of the experiment. The name of this tag begins with VIEW_TAG. The tag COLOUR_TAG of a
# run contains the colour of the run.
VIEW_TAG = "mlflow.sharedViewState."
COLOUR_TAG = "mlflow.runColor"
# These are the colours of Okabe and Ito, which colour-blind readers can tell apart. Grey and brown replace yellow,
# which is too pale on white.
COLOURS = ("#000000", "#8c8c8c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f4f24")
# A control gets a paler colour than its split. These values are the share of white in the colour, by the rule of the
# control.
TINTS = {"random": 0.5, "matched": 0.75}


class View(NamedTuple):
    """A saved view.

    Attributes:
        key: Identifier of the view, which is part of the address of the page.
        value: Value of the tag that stores the view.
    """

    key: str
    value: str


def colours(params: Params) -> dict[str, str]:
    """Return the colour of each trained split.

    A split has the same colour for all thresholds and seeds. A control has a paler variant of the colour of its split.

    Args:
        params: The params file.

    Returns:
        The colour of each split as "#rrggbb", by the name of the split.
    """
    rules = params.prune.rules()
    tints = {name: tint for rule, tint in TINTS.items() for name in rules[rule]}
    sizes = {name: rules[rule][name].size_of for rule in TINTS for name in rules[rule]}
    controls = {split: sizes[split] for split in params.runs if sizes.get(split, "full") != "full"}
    own = [split for split in dict.fromkeys([*params.runs, *controls.values()]) if split not in controls]
    found = {split: COLOURS[place % len(COLOURS)] for place, split in enumerate(own)}
    for split, controlled in controls.items():
        # The split of a control may itself be a control, which has no strong colour. The control then gets a pale grey.
        strong = bytes.fromhex(found.get(controlled, COLOURS[1])[1:])
        found[split] = "#" + bytes(round(part + tints[split] * (255 - part)) for part in strong).hex()
    return found


def accuracy_view(params: Params, created: int) -> View:
    """Return a view that shows the accuracy of the runs of a study.

    The view hides runs on other data, because their benchmarks may have equal names.

    Args:
        params: The params file.
        created: Creation time of the view, in milliseconds since 1970. MLflow shows this time.
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
        # This setting keeps the order of the sections. Without it, MLflow sorts the sections by name and shows other
        # sections first.
        "isAccordionReordered": True,
    }
    name = f"accuracy by threshold: {params.pool.path}"
    saved = {"name": name, "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    return View(hashlib.sha256(runs.encode()).hexdigest()[:16], json.dumps(saved))


def save_view(client: MlflowClient, experiment: str, params: Params) -> str:
    """Save the view of the runs of a study if the view does not exist yet.

    The function never overwrites a view that a user has changed.

    Args:
        client: MLflow client of the store.
        experiment: Id of the MLflow experiment.
        params: The params file.

    Returns:
        The key of the view.
    """
    found = client.get_experiment(experiment)
    view = accuracy_view(params, found.creation_time)
    if f"{VIEW_TAG}{view.key}" not in found.tags:
        client.set_experiment_tag(experiment, f"{VIEW_TAG}{view.key}", view.value)
    return view.key
