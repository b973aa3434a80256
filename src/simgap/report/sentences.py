"""Write the results as sentences. Every number names its metrics file, and every verdict comes from an interval."""

from __future__ import annotations

from markupsafe import Markup

from simgap.report.html import cite, cite_interval, listed, named
from simgap.report.inputs import BY_SIZE, IMAGENET_LIKE, LEAKS, ReportInputs
from simgap.store import verdicts
from simgap.store.estimates import Metric
from simgap.store.study import COMPARE, Study

PARAMS_FILE = "params.yaml"
GAP_SENTENCES = {
    verdicts.MORE_THAN_HALF: "More than half of the gap comes from the pruned rows.",
    verdicts.LESS_THAN_HALF: "Less than half of the gap comes from the pruned rows. Most of the robustness stays.",
    verdicts.INCONCLUSIVE: "It is inconclusive whether the pruned rows explain more than half of the gap.",
}
MATCH_SENTENCES = {
    verdicts.MATCHES: "The split matches full on every benchmark.",
    verdicts.DOES_NOT_MATCH: "The split does not match full.",
    verdicts.INCONCLUSIVE: "It is inconclusive whether the split matches full.",
}
COPIES_SENTENCES = {
    verdicts.HIGHER: "Copied images raise the accuracy of {} on {} (in points).",
    verdicts.LOWER: "Copied images lower the accuracy of {} on {} (in points).",
    verdicts.INCONCLUSIVE: "It is inconclusive whether copied images change the accuracy of {} on {} (in points).",
}


def _marked(study: Study, split: str, benchmark: str) -> Markup:
    return named(benchmark) if study.used(split, benchmark) else Markup("{} (held out)").format(named(benchmark))


def _beyond(study: Study, split: str) -> Markup:
    if not study.splits[split].threshold:
        return Markup("")
    return Markup(", by more than {}").format(cite(study.metric(f"prune/{split}", "threshold"), "number"))


def explained(study: Study, split: str, benchmark: str) -> Markup:
    """Return sentences about the gap on a benchmark.

    The sentences contain the share that pruning explains, the shares of the controls, and the verdict. The share of the split
    must be defined. Controls with an undefined share are skipped.
    """
    share = study.gap_explained(split, benchmark)
    assert share is not None
    control_texts = Markup("")
    for control in study.controls_of(split):
        control_share = study.gap_explained(control, benchmark)
        if control_share is not None:
            control_texts += Markup(" Leaving out {} ({}) explains {}.").format(
                _rows_of(study, control), named(control), cite_interval(control_share, "share", "%")
            )
    return Markup(
        "Pruning the rows that are closer to {} than the reference is{} ({}) explains {} of the gap between {} and {} on "
        "{}.{} {}"
    ).format(
        listed(study.splits[split].benchmarks),
        _beyond(study, split),
        named(split),
        cite_interval(share, "share", "%"),
        named(str(study.full())),
        named(str(study.reference_only())),
        _marked(study, split, benchmark),
        control_texts,
        GAP_SENTENCES[verdicts.judge_gap_explained(share)],
    )


def _rows_of(study: Study, control: str) -> str:
    """Return a phrase that describes the rows that a control leaves out."""
    if study.splits[control].rule == "matched":
        return f"as many random rows of each {study.splits[control].parameters['match']}"
    return "as many random rows"


def against_controls(study: Study, split: str) -> list[Markup]:
    """Return a sentence for each control of a split.

    The verdict is about the accuracy of the split minus the accuracy of the control. The sentence lists the benchmarks by
    verdict.
    """
    return [
        Markup("Compared with leaving out {} ({}), the accuracy of {} is {}.").format(
            _rows_of(study, control),
            named(control),
            named(split),
            _by_verdict(study, split, {name: study.verdict_control(split, name, control) for name in study.benchmarks}),
        )
        for control in study.controls_of(split)
    ]


def _by_verdict(study: Study, split: str, by_benchmark: dict[str, str | None]) -> Markup:
    """Return a phrase that lists the benchmarks by verdict, such as `lower on a and b; equivalent on c`.

    Benchmarks without a verdict are skipped.
    """
    found: dict[str, list[Markup]] = {
        word: [] for word in (verdicts.LOWER, verdicts.HIGHER, verdicts.EQUIVALENT, verdicts.INCONCLUSIVE)
    }
    for benchmark, verdict in by_benchmark.items():
        if verdict is not None:
            found[verdict].append(_marked(study, split, benchmark))
    parts = [Markup("<strong>{}</strong> on {}").format(word, listed(names)) for word, names in found.items() if names]
    return Markup("; ").join(parts)


def claim_a(study: Study) -> list[Markup]:
    """Return the sentences about claim A.

    Claim A says that CLIP keeps most of its robustness if the pool is pruned to the similarity of the reference.
    """
    splits, full, reference = study.splits_by_rule(IMAGENET_LIKE), study.full(), study.reference_only()
    if not splits or full is None or reference is None:
        return [
            Markup("Claim A is not tested. The study must train full, the reference alone and an imagenet-like split.")
        ]
    sentences = []
    undefined = list(study.benchmarks)
    for split in splits:
        defined = [name for name in study.benchmarks if study.gap_explained(split, name) is not None]
        undefined = [name for name in undefined if name not in defined]
        sentences += [explained(study, split, name) for name in defined]
    if undefined:
        sentences.append(
            Markup(
                "The share is undefined on {}. The interval of the gap between {} and {} does not lie completely above zero, so "
                "there may be no gap to explain. Claim A is inconclusive on {}."
            ).format(
                listed(undefined),
                named(full),
                named(reference),
                "this benchmark" if len(undefined) == 1 else "these benchmarks",
            )
        )
    return sentences + [sentence for split in splits for sentence in against_controls(study, split)]


def claim_b(study: Study, margin: float) -> list[Markup]:
    """Return the sentences about claim B.

    Claim B says that a small split that is chosen by similarity matches full.
    """
    splits, full = study.splits_by_rule(*BY_SIZE), study.full()
    if not splits or full is None:
        return [Markup("Claim B is not tested. The study must train full and a split chosen by similarity.")]
    within = cite(Metric(margin, PARAMS_FILE, "compare/equivalence_margin"), "percent")
    sentences = []
    for split in splits:
        by_benchmark = {name: study.verdict_full(split, name) for name in study.benchmarks}
        sentences.append(
            Markup(
                "{} keeps {} of {} rows. Compared with {}, with a margin of {} points, the accuracy of the split is {}. {}"
            ).format(
                named(split),
                cite(study.rows_kept(split), "count"),
                cite(study.rows_kept("full"), "count"),
                named(full),
                within,
                _by_verdict(study, split, by_benchmark),
                MATCH_SENTENCES[verdicts.judge_match({str(verdict) for verdict in by_benchmark.values()})],
            )
        )
    return sentences


def _how_copies_are_found(study: Study) -> list[Markup]:
    found = study.read(LEAKS)
    threshold = cite(study.metric(LEAKS, "threshold"), "similarity")
    if found["calibrated"]:
        how = Markup(
            "An image counts as copied if its similarity to the pool exceeds {}. This threshold is calibrated on the annotated "
            "copies of the pool. With it, {}% of the images without an annotated copy count as copied. The embedder finds {}% of "
            "the {} annotated copies."
        ).format(
            threshold,
            cite(study.metric(LEAKS, "false_positive_share"), "percent"),
            cite(study.metric(LEAKS, "recall"), "percent"),
            cite(study.metric(LEAKS, "marked_copies"), "count"),
        )
    else:
        how = Markup(
            "An image counts as copied if its similarity to the pool exceeds {}. This threshold is a parameter of the study."
        ).format(threshold)
    sentences = [how]
    # The recall is known only if the pool is annotated. Without annotations, no warning about the recall is possible.
    if not verdicts.can_count_copies(found.get("recall", 1)):
        sentences.append(
            Markup(
                "The embedder finds fewer than half of the annotated copies. It is therefore <strong>inconclusive</strong> how "
                "many images leaked."
            )
        )
    return sentences


def leaks(study: Study) -> list[Markup]:
    """Return the sentences about leaks: how copied images are detected, and whether copied images change the accuracy."""
    sentences = _how_copies_are_found(study)
    split = study.full() or next(iter(study.splits))
    found: dict[str, list[Markup]] = {word: [] for word in COPIES_SENTENCES}
    without_effect = {"No": list[str](), "Every": list[str]()}
    for benchmark in study.benchmarks:
        added = study.estimate(split, benchmark, "added_by_copies")
        if added is not None:
            effect = Markup("{} ({})").format(named(benchmark), cite_interval(added, "points"))
            found[verdicts.judge_effect(added)].append(effect)
        else:
            without_effect["Every" if study.read(LEAKS)[f"{benchmark}/copied"] else "No"].append(benchmark)
    sentences += [
        Markup(COPIES_SENTENCES[word]).format(named(split), listed(effects))
        for word, effects in found.items()
        if effects
    ]
    sentences += [
        Markup("{} image of {} counts as copied.").format(word, listed(names))
        for word, names in without_effect.items()
        if names
    ]
    return sentences


def joined(study: Study) -> Markup:
    """Return a sentence that lists the splits with models that were also trained on the reference."""
    with_reference = [name for name, split in study.splits.items() if split.reference_rows]
    if len(with_reference) == len(study.splits):
        return Markup("The models of every split were also trained on the reference.")
    return Markup("The models of {} were also trained on the reference.").format(listed(with_reference) or "no split")


def _removed_domains(inputs: ReportInputs, split: str) -> list[Markup]:
    """Return sentences about the styles whose rows a split has pruned almost completely.

    Each ground truth adds one sentence if the split lacks nearly all rows of a style.
    """
    sentences = []
    for name in inputs.ground_truths:
        metrics = inputs.ground_truth(name)
        removed = metrics.get(f"{split}/domains_removed", "none")
        if removed != "none":
            # The styles are found by searching each known name in the metric. The metric separates names by commas, and a
            # name may also contain a comma. Splitting at commas would break such a name.
            prefix = f"{split}/pruned_share/style/"
            styles = sorted(key.removeprefix(prefix) for key in metrics if key.startswith(prefix))
            sentences.append(
                Markup(
                    "{} lacks nearly all rows of a style ({}). Pruning removed a whole domain, not only single samples."
                ).format(named(split), listed([style for style in styles if f", {style}, " in f", {removed}, "]))
            )
    return sentences


def cautions(inputs: ReportInputs) -> list[Markup]:
    """Return sentences about the limits of the results: few seeds, degenerate splits, and removed domains."""
    study = inputs.study
    seeds = study.metric(COMPARE, "seeds")
    count = cite(seeds, "count")
    found = [
        Markup("The study has {} training seed. Intervals are over images only.").format(count)
        if seeds.value == 1
        else Markup("The study has {} training seeds. Intervals are over images and seeds{}.").format(
            count, ", and approximate because there are so few seeds" if seeds.value < 4 else ""
        )
    ]
    for split in study.splits_by_rule(IMAGENET_LIKE):
        if study.read(f"prune/{split}").get("degenerate"):
            share = cite(study.metric(f"prune/{split}", "kept_share_of_full"), "percent")
            found.append(
                Markup(
                    "{} is degenerate: it keeps only {}% of full, which is too little to represent the pool."
                ).format(named(split), share)
            )
        found += _removed_domains(inputs, split)
    return found
