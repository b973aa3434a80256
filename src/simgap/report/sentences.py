"""What the intervals say, in words. No number is typed: each is a metric, and each verdict comes of an interval."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from simgap.report.numbers import cited
from simgap.report.study import BY_SIZE, COMPARE, IMAGENET_LIKE, LEAKS, Study

PARAMS_FILE = "params.yaml"
# A split that keeps more than half of the gap keeps most of it.
MOST = 0.5
# Of the marked copies: where a smaller share is found, a count of copies says little.
FOUND = 0.5


def named(name: str) -> Markup:
    """Write a name of the study, which may have digits in it."""
    return Markup('<span class="name">{}</span>').format(name)


def listed(names: Sequence[str | Markup]) -> Markup:
    """Join names as a sentence does."""
    parts = [named(name) if not isinstance(name, Markup) else name for name in names]
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup("{} and {}").format(Markup(", ").join(parts[:-1]), parts[-1])


def _marked(study: Study, split: str, benchmark: str) -> Markup:
    return named(benchmark) if study.used(split, benchmark) else Markup("{} (held out)").format(named(benchmark))


def _beyond(study: Study, split: str) -> Markup:
    threshold = study.splits[split]["threshold"]
    if not threshold:
        return Markup("")
    return Markup(", by more than {},").format(study.metrics.number(f"prune/{split}", "threshold", "number"))


def explained(study: Study, split: str, benchmark: str) -> Markup:
    """Say which share of a benchmark's gap pruning explains, what random rows do, and whether that is most of the gap."""
    key = f"{split}/{benchmark}/gap_explained"
    low, high = study.compared[f"{key}/low"], study.compared[f"{key}/high"]
    if low > MOST:
        verdict = "More than half of the gap is owed to the rows that were pruned."
    elif high < MOST:
        verdict = "Less than half of the gap is owed to them: most of the robustness stays."
    else:
        verdict = "Whether that is most of the gap is inconclusive."
    of_controls = Markup("").join(
        Markup("; {} left out ({}) explain {}").format(
            _rows_of(study, control), named(control), _share(study, f"{control}/{benchmark}/gap_explained")
        )
        for control in study.controls_of(split)
        if study.has(f"{control}/{benchmark}/gap_explained")
    )
    return Markup(
        "Pruning what is closer to {} than the reference is{} ({}) explains {} of the gap between {} and {} on {}{}. {}"
    ).format(
        listed(study.splits[split]["benchmarks"]), _beyond(study, split), named(split), _share(study, key),
        named(str(study.full())), named(str(study.reference_alone())), _marked(study, split, benchmark), of_controls, verdict,
    )  # fmt: skip


def _rows_of(study: Study, control: str) -> str:
    """Say in words which rows a control is without."""
    if study.splits[control]["rule"] == "matched":
        return f"as many random rows of each {study.splits[control]['parameters']['match']}"
    return "as many random rows"


def _share(study: Study, key: str) -> Markup:
    low, high = (study.metrics.number(COMPARE, f"{key}/{end}", "share") for end in ("low", "high"))
    return Markup("{}% [{}, {}]").format(study.metrics.number(COMPARE, key, "share"), low, high)


def against_controls(study: Study, split: str) -> list[Markup]:
    """Say of each control of a split on which benchmarks the split differs from it."""
    return [
        Markup("Against {} ({}), {} is {}.").format(
            _rows_of(study, control),
            named(control),
            named(split),
            _by_verdict(
                study, split, "verdict_control" if control == study.control_of(split) else f"verdict/{control}"
            ),
        )
        for control in study.controls_of(split)
    ]


def _by_verdict(study: Study, split: str, figure: str) -> Markup:
    """List the benchmarks by verdict: lower on ..., higher on ..., equivalent on ..., inconclusive on ...."""
    verdicts: dict[str, list[Markup]] = {word: [] for word in ("lower", "higher", "equivalent", "inconclusive")}
    for benchmark in study.benchmarks:
        verdicts[study.compared[f"{split}/{benchmark}/{figure}"]].append(_marked(study, split, benchmark))
    parts = [
        Markup("<strong>{}</strong> on {}").format(word, listed(names)) for word, names in verdicts.items() if names
    ]
    return Markup("; ").join(parts)


def claim_a(study: Study) -> list[Markup]:
    """Answer claim A: pruned to the reference's similarity, does CLIP keep most of its robustness?"""
    splits, full, alone = study.trained(IMAGENET_LIKE), study.full(), study.reference_alone()
    if not splits or full is None or alone is None:
        return [
            Markup("Not tested: the study would have to train full, the reference alone and an imagenet-like split.")
        ]
    sentences = []
    undefined = list(study.benchmarks)
    for split in splits:
        defined = [name for name in study.benchmarks if study.has(f"{split}/{name}/gap_explained")]
        undefined = [name for name in undefined if name not in defined]
        sentences += [explained(study, split, name) for name in defined]
    if undefined:
        sentences.append(
            Markup(
                "On {} the share is undefined: {} is not better than {} there with an interval above zero, so that there is no "
                "gap of which pruning could explain a share; claim A is inconclusive on {}."
            ).format(listed(undefined), named(full), named(alone), "it" if len(undefined) == 1 else "them")
        )
    return sentences + [sentence for split in splits for sentence in against_controls(study, split)]


def claim_b(study: Study, margin: float) -> list[Markup]:
    """Answer claim B: does a small split, chosen by similarity, match full?"""
    splits, full = study.trained(*BY_SIZE), study.full()
    if not splits or full is None:
        return [Markup("Not tested: the study would have to train full and a split chosen by similarity.")]
    sentences = []
    for split in splits:
        verdicts = {study.compared[f"{split}/{benchmark}/verdict_full"] for benchmark in study.benchmarks}
        if verdicts <= {"equivalent", "higher"}:
            answer = "It matches full on every benchmark."
        elif "lower" in verdicts:
            answer = "It does not match full."
        else:
            answer = "Whether it matches full is inconclusive."
        size = study.metrics.number(f"prune/{split}", "kept", "count")
        of_full = study.metrics.number("prune/full", "kept", "count")
        within = cited(margin, PARAMS_FILE, "compare/equivalence_margin", "percent")
        sentences.append(
            Markup("{} keeps {} of {} rows. With a margin of {} points, against {} it is {}. {}").format(
                named(split), size, of_full, within, named(full), _by_verdict(study, split, "verdict_full"), answer
            )
        )
    return sentences


def leaks(study: Study) -> list[Markup]:
    """Answer whether a test set leaked, and whether that shows in the accuracy."""
    number = study.metrics.number
    found = study.metrics.read(LEAKS)
    threshold = number(LEAKS, "threshold", "similarity")
    if not found["calibrated"]:
        how = Markup("An image counts as copied where its similarity to the pool exceeds {}, a parameter.").format(
            threshold
        )
    else:
        how = Markup(
            "An image counts as copied where its similarity to the pool exceeds {}, calibrated on the pool's marks: there "
            "{}% of images without a marked copy are taken for copied"
        ).format(threshold, number(LEAKS, "false_positive_share", "percent"))
        how += Markup(", and {}% of {} marked copies are found.").format(
            number(LEAKS, "recall", "percent"), number(LEAKS, "marked_copies", "count")
        )
    sentences = [how]
    if found.get("recall", 1) < FOUND:
        sentences.append(
            Markup(
                "The embedder tells fewer than half of the marked copies from other similar images: how many leaked is "
                "<strong>inconclusive</strong>."
            )
        )
    split = study.full() or study.runs[0]
    words: dict[str, list[Markup]] = {"more": [], "less": [], "inconclusive": []}
    clean = []
    for benchmark in study.benchmarks:
        key = f"{split}/{benchmark}/added_by_copies"
        if not study.has(key):
            clean.append(benchmark)
            continue
        low, high = study.compared[f"{key}/low"], study.compared[f"{key}/high"]
        word = "more" if low > 0 else "less" if high < 0 else "inconclusive"
        words[word].append(Markup("{} ({})").format(named(benchmark), study.metrics.interval(COMPARE, key, "points")))
    if words["more"]:
        sentences.append(
            Markup("Copied images raise the accuracy of {}, in points, on {}.").format(
                named(split), listed(words["more"])
            )
        )
    if words["less"]:
        sentences.append(
            Markup("With the copied images the accuracy of {} is lower than without, in points, on {}.").format(
                named(split), listed(words["less"])
            )
        )
    if words["inconclusive"]:
        sentences.append(
            Markup("Whether copied images change the accuracy of {} is inconclusive on {}.").format(
                named(split), listed(words["inconclusive"])
            )
        )
    none = [benchmark for benchmark in clean if not found[f"{benchmark}/copied"]]
    every = [benchmark for benchmark in clean if benchmark not in none]
    for word, names in (("No", none), ("Every", every)):
        if names:
            sentences.append(Markup("{} image of {} counts as copied.").format(word, listed(names)))
    return sentences


def joined(study: Study) -> Markup:
    """Say which splits were trained on the reference too."""
    with_reference = [split for split in study.runs if study.splits[split]["reference_rows"]]
    if len(with_reference) == len(study.runs):
        return Markup("The reference joined the training data of every split.")
    return Markup("The reference joined the training data of {}.").format(listed(with_reference) or "no split")


def cautions(study: Study) -> list[Markup]:
    """Say what a reader should know before the figures: few seeds, degenerate splits, domains removed."""
    seeds = study.compared["seeds"]
    count = study.metrics.number(COMPARE, "seeds", "count")
    found = [
        Markup("{} training seed: intervals are over images only.").format(count)
        if seeds == 1
        else Markup("{} training seeds: intervals are over images and seeds{}.").format(
            count, ", and approximate with so few" if seeds < 4 else ""
        )
    ]
    for split in study.trained(IMAGENET_LIKE):
        if study.splits[split].get("degenerate"):
            share = study.metrics.number(f"prune/{split}", "kept_share_of_full", "percent")
            found.append(
                Markup("{} keeps {}% of full: too little to speak for the pool (degenerate).").format(
                    named(split), share
                )
            )
        for truth in study.truths:
            metrics = study.metrics.read(f"ground-truth/{truth}")
            removed = metrics.get(f"{split}/domains_removed", "none")
            if removed != "none":
                # A style may have a comma in its name.
                prefix = f"{split}/pruned_share/style/"
                styles = sorted(key.removeprefix(prefix) for key in metrics if key.startswith(prefix))
                found.append(
                    Markup(
                        "{} is without nearly all rows of a style ({}): a domain was removed, not single samples."
                    ).format(named(split), listed([style for style in styles if f", {style}, " in f", {removed}, "]))
                )
    return found
