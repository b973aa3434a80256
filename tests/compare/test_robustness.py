from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simgap.compare.outcomes import Outcomes
from simgap.compare.resamples import Resamples
from simgap.compare.robustness import baselines_of, clipped_logit, fit_line, fitted_lines, robustness
from simgap.params.compare import CompareParameters
from simgap.store.split import Split

PARAMETERS = CompareParameters(resamples=200, seed=0, equivalence_margin=0.05, in_distribution_benchmark="val")
IMAGES = 1000
RULES = {"full": ("full", 80), "half": ("random", 40), "quarter": ("random", 20), "alone": ("random", 0)}


def answers(rates: list[float]) -> np.ndarray:
    """Return the answers of models with exactly these accuracies."""
    return np.stack([np.arange(IMAGES) < round(rate * IMAGES) for rate in rates])


def outcomes(rates: dict[str, tuple[list[float], list[float]]]) -> Outcomes:
    """Return outcomes of splits with (accuracies on val, accuracies on sketch), a value for each seed."""
    splits = {}
    for name in rates:
        rule, kept = RULES.get(name, ("imagenet-like", 40))
        splits[name] = Split(rule, {}, [], None, kept, 80, "", True, "x", None)
    correct = {(n, b): answers(of[i]) for n, of in rates.items() for i, b in enumerate(("val", "sketch"))}
    labels = {name: np.zeros(IMAGES, np.int64) for name in ("val", "sketch")}
    used = {name: np.ones(IMAGES, bool) for name in ("val", "sketch")}
    return Outcomes(splits, 80, ["val", "sketch"], [0, 1], labels, used, {}, correct, {}, {}, {})


def measure(rates: dict[str, tuple[list[float], list[float]]]):
    made = outcomes(rates)
    return robustness(made, Resamples(PARAMETERS, made), "val")["sketch"]


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


RATES = {
    "full": ([0.80, 0.82], [0.50, 0.55]),
    "half": ([0.70, 0.71], [0.40, 0.38]),
    "quarter": ([0.55, 0.58], [0.27, 0.30]),
    "pruned": ([0.75, 0.76], [0.20, 0.22]),
    "alone": ([0.40, 0.42], [0.20, 0.18]),
}


def test_against_a_line_fitted_by_numpy() -> None:
    found = measure(RATES)
    models = [(p, s) for name in ("full", "half", "quarter") for p, s in zip(*RATES[name], strict=True)]
    slope, intercept = np.polyfit([logit(p) for p, _ in models], [logit(s) for _, s in models], 1)
    assert set(found) == {"pruned", "alone"}
    for name, beyond in (("pruned", False), ("alone", True)):
        residuals = [s - 1 / (1 + np.exp(-(slope * logit(p) + intercept))) for p, s in zip(*RATES[name], strict=True)]
        measured = found[name]
        assert measured.effective is not None
        assert measured.effective.value == pytest.approx(np.mean(residuals))
        assert measured.effective.low < np.mean(residuals) < measured.effective.high
        assert measured.relative is not None
        assert measured.relative.value == pytest.approx(np.mean(RATES[name][1]) - np.mean(RATES["full"][1]))
        assert measured.beyond_the_line is beyond
    assert found["pruned"].effective.high < 0


def test_intervals_against_a_line_fitted_in_every_resample() -> None:
    # The benchmarks differ in size, and one model is never right. Its clipped accuracy depends on the size.
    made = outcomes({**RATES, "half": ([0.70, 0.62], [0.05, 0.0])})
    made.labels["sketch"] = np.zeros(60, np.int64)
    made.used_by_rule["sketch"] = np.ones(60, bool)
    for (split, benchmark), correct in made.correct.items():
        if benchmark == "sketch":
            made.correct[split, benchmark] = correct[:, :: IMAGES // 60][:, :60]
    resamples = Resamples(PARAMETERS, made)
    counts = {benchmark: resamples.images(benchmark) for benchmark in made.benchmarks}

    def place(split: str, seed: int, resample: int) -> tuple[float, float, float]:
        x, y = (
            float(counts[benchmark][resample] @ made.correct[split, benchmark][seed]) / counts[benchmark].shape[1]
            for benchmark in ("val", "sketch")
        )
        return logit(np.clip(x, 1 / 2000, 1 - 1 / 2000)), logit(np.clip(y, 1 / 120, 1 - 1 / 120)), y

    residuals = []
    for resample in range(1 + PARAMETERS.resamples):
        models = [(split, seed) for split in ("full", "half", "quarter") for seed in (0, 1)]
        weights = np.array([resamples.seeds(split)[resample, seed] for split, seed in models])
        x, y, _ = np.array([place(split, seed, resample) for split, seed in models]).T
        slope, intercept = np.polyfit(x, y, 1, w=np.sqrt(weights))
        residual = 0.0
        for seed in (0, 1):
            x_of_pruned, _, accuracy = place("pruned", seed, resample)
            predicted = 1 / (1 + np.exp(-(slope * x_of_pruned + intercept)))
            residual += resamples.seeds("pruned")[resample, seed] * (accuracy - predicted) / 2
        residuals.append(residual)
    found = robustness(made, resamples, "val")["sketch"]["pruned"].effective
    assert found is not None
    assert found.value == pytest.approx(residuals[0])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(residuals[1:], (0.025, 0.975))))


def test_the_line_as_measured_is_the_one_that_residuals_are_from() -> None:
    made = outcomes(RATES)
    (line,) = fitted_lines(made, "val").values()
    models = [(p, s) for name in ("full", "half", "quarter") for p, s in zip(*RATES[name], strict=True)]
    slope, intercept = np.polyfit([logit(p) for p, _ in models], [logit(s) for _, s in models], 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert (line.first, line.last) == (0.55, 0.82)
    alike = outcomes({"full": ([1, 1], [0.5, 0.5]), "half": ([1, 1], [0.4, 0.4])})
    assert fitted_lines(alike, "val") == {}


def test_one_size_gives_no_line() -> None:
    made = outcomes({name: RATES[name] for name in ("half", "pruned", "alone")})
    assert baselines_of(made) == []
    assert fitted_lines(made, "val") == {}
    found = robustness(made, Resamples(PARAMETERS, made), "val")["sketch"]
    assert set(found) == {"half", "pruned", "alone"}
    assert all(each.effective is None and each.relative is None for each in found.values())


def test_models_of_one_accuracy_give_no_line() -> None:
    found = measure({"full": ([1, 1], [0.5, 0.5]), "half": ([1, 1], [0.4, 0.4]), "pruned": ([1, 1], [0.3, 0.3])})
    assert found["pruned"].effective is None
    assert found["pruned"].relative is not None


def test_the_clip() -> None:
    clipped = clipped_logit(np.array([[0.0, 1.0, 0.5]]), 10)
    assert clipped == pytest.approx(np.array([[logit(0.05), logit(0.95), 0.0]]))


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 3)), min_size=2, max_size=8).filter(
        lambda points: len({x for x, _, _ in points}) > 1
    )
)
def test_weights_are_repeats(points: list[tuple[int, int, int]]) -> None:
    x, y, weights = (np.array([column], np.float64) for column in zip(*points, strict=True))
    repeated = [(x, y) for x, y, count in points for _ in range(count)]
    slope, intercept = np.polyfit([x for x, _ in repeated], [y for _, y in repeated], 1)
    found = fit_line(x, y, weights)
    assert found[0][0] == pytest.approx(slope, abs=1e-9)
    assert found[1][0] == pytest.approx(intercept, abs=1e-7)


def test_a_line_through_one_place_is_undefined() -> None:
    slopes, _ = fit_line(np.full((1, 3), 0.1), np.array([[1.0, 2, 3]]), np.ones((1, 3)))
    assert np.isnan(slopes).all()
