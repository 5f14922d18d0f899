"""Statistics of a comparison, beside SciPy's own tests and published tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from mlxstories.comparison import statistics
from mlxstories.comparison.statistics import estimate, paired, seeds_to_decide, together


@pytest.mark.parametrize("count", [2, 3, 7])
def test_an_interval_is_students(count):
    values = np.random.default_rng(0).normal(3, 2, count)
    found = estimate(values)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert found.half == pytest.approx((high - low) / 2)


def test_one_seed_gives_no_interval_and_decides_nothing():
    found = paired([1.0], [2.0], lower_is_better=True)
    assert (found.estimate.low, found.verdict, found.seeds_to_decide) == (None, "undecided", None)


@pytest.mark.parametrize("lower, verdict", [(True, "better"), (False, "worse")])
def test_the_sign_of_the_measure_decides(lower, verdict):
    assert paired([1.0, 1.1, 0.9], [2.0, 2.0, 2.1], lower_is_better=lower).verdict == verdict


def test_differences_without_any_spread_are_certain_or_none():
    assert paired([1.0, 1.0], [1.0, 1.0], lower_is_better=True).verdict == "undecided"
    assert paired([1.0, 1.0], [2.0, 2.0], lower_is_better=True).verdict == "better"


@pytest.fixture
def few_seeds(monkeypatch):
    """The seeds that would decide are not looked for among many: that takes most of the time."""
    monkeypatch.setattr(statistics, "_MOST_SEEDS", 2)


def test_null_comparisons_have_the_nominal_false_positive_rate(few_seeds):
    rng = np.random.default_rng(4)
    decided = [
        paired(*(common + rng.normal(size=(2, 5))), lower_is_better=True).verdict != "undecided"
        for common in rng.normal(0, 10, (1000, 5))
    ]
    assert stats.binomtest(sum(decided), len(decided), 0.05).pvalue > 0.01


@pytest.mark.parametrize("count", [2, 6])
def test_the_p_value_is_the_paired_t_tests(count):
    a, b = np.random.default_rng(2).normal(0.3, 1, (2, count))
    assert paired(a, b, lower_is_better=True).p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_many_null_comparisons_together_have_the_nominal_rate_of_any_false_verdict(few_seeds):
    rng = np.random.default_rng(5)
    false = 0
    for _ in range(1000):
        found = [paired(rng.normal(size=5), rng.normal(size=5), lower_is_better=True) for _ in range(8)]
        false += any(one.verdict != "undecided" for one in together(found))
    assert stats.binomtest(false, 1000, 0.05, alternative="greater").pvalue > 0.01


def test_holms_own_steps():
    # p = 0.01, 0.04, 0.03 against 0.05 / 3, 0.05 / 2 and 0.05 / 1: only the first passes, the others stop there.
    rng = np.random.default_rng(3)
    shape = rng.normal(size=5)
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    samples = [shape + stats.t.isf(p / 2, 4) / np.sqrt(5) for p in (0.01, 0.04, 0.03)]
    found = [paired(sample, np.zeros(5), lower_is_better=False) for sample in samples]
    assert [one.p_value for one in found] == pytest.approx([0.01, 0.04, 0.03])
    assert [one.verdict for one in together(found)] == ["better", "undecided", "undecided"]


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10), (1.5, 6)])
def test_seeds_to_decide_are_those_of_published_tables(effect, seeds):
    """Two-sided t test of one sample at 5 % with 80 % power, as G*Power 3.1 and statsmodels give them."""
    draws = np.array([-1.0, 1.0]) / 2**0.5  # a standard deviation of 1
    assert seeds_to_decide(draws + effect) == seeds
    assert seeds_to_decide([0.3, 0.3]) == 2 and seeds_to_decide([1.0]) is None


def test_seeds_to_decide_have_the_power_that_is_promised():
    rng = np.random.default_rng(1)
    differences = np.array([0.2, -0.9, 1.4, 0.7, 0.4, 1.1])
    needed = seeds_to_decide(differences)
    drawn = rng.normal(differences.mean(), differences.std(ddof=1), (4000, needed))
    power = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05)
    assert 0.77 < power < 0.9


@pytest.mark.parametrize("n", [*range(2, 20), statistics._MOST_SEEDS])
def test_seeds_to_decide_are_the_fewest_with_the_power_of_a_t_test(n):
    """At the effect for which so many seeds have just the power."""
    effect = optimize.brentq(lambda effect: _power(n, effect) - 0.8, 0.05, 100)
    draws = np.array([-1.0, 1.0]) / 2**0.5  # a standard deviation of 1
    assert seeds_to_decide(effect * (1 + 1e-6) + draws) == n
    one_more = None if n == statistics._MOST_SEEDS else n + 1
    assert seeds_to_decide(effect * (1 - 1e-6) + draws) == one_more


def _power(n: int, effect: float) -> float:
    """Of a two-sided t test of ``n`` values at 5 %, by its definition."""
    return stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, effect * n**0.5)
