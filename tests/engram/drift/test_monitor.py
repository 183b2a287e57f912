"""Laws of the stream monitor, and its detectors beside plain ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from engram.drift.cusum import HEIGHT, Cusum, bearable
from engram.drift.monitor import (
    BLOCK,
    LEVELS,
    MARGIN,
    REFERENCE,
    SIGNIFICANCE,
    STATES,
    WINDOW,
    State,
    StreamMonitor,
    upper_share,
)
from engram.drift.welch import Moments, student_tail, welch
from engram.recognition.conformal import ALPHA

Numbers = NDArray[np.float64]


def moments(values: Iterable[float]) -> Moments:
    found = Moments()
    for value in values:
        found.add(value)
    return found


def known(rng: np.random.Generator, count: int, a: float = 1.0, b: float = 1.0) -> Numbers:
    """Novelties of known images whose p-values follow Beta(a, b), but for 2 % that are unknown by chance."""
    return np.where(rng.random(count) < 0.02, 1 - 0.01 * rng.random(count), 1 - rng.beta(a, b, count))


def newcomers(rng: np.random.Generator, count: int, unknown: float, mixed: float) -> Numbers:
    """A stream of which the share `mixed` is of a new task, and the share `unknown` of that beyond 0.99."""
    new = np.where(rng.random(count) < unknown, 1 - 0.01 * rng.random(count), 0.99 * rng.random(count))
    return np.where(rng.random(count) < mixed, new, known(rng, count))


def states(monitor: StreamMonitor, novelties: Numbers) -> list[State]:
    return [monitor.add(novelty) for novelty in novelties.tolist()]


def first(state: State, seen: list[State]) -> int:
    """How many images it took."""
    return seen.index(state) + 1


@pytest.mark.parametrize("freedom", [1.0, 2.5, 7.0, 20.3, 400.0])
def test_the_tail_of_students_t_is_scipys(freedom: float) -> None:
    for t in (-40.0, -2.0, -1e-6, 0.0, 0.3, 1.0, 4.0, 9.0, 40.0):
        assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-9)


def test_the_tail_of_students_t_is_safe_at_the_ends() -> None:
    for freedom in (1e-300, 1.0, 1e9, math.inf):
        assert student_tail(math.inf, freedom) == student_tail(1e308, freedom) == 0.0
        assert student_tail(-math.inf, freedom) == student_tail(-1e308, freedom) == 1.0
        assert student_tail(0.0, freedom) == 0.5


@pytest.mark.parametrize("seed", range(20))
def test_welch_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    newest, reference = rng.beta(2, 1, rng.integers(2, 300)), rng.beta(1, 1, rng.integers(2, 300))
    margin = 0.2 * rng.random()
    expected = stats.ttest_ind(newest, reference + margin, equal_var=False, alternative="greater").pvalue
    assert welch(moments(newest), moments(reference), margin) == pytest.approx(expected, rel=1e-6)


def test_welch_without_variance_compares_what_is_there() -> None:
    low, high = moments([0.25] * 9), moments([0.5] * 9)
    assert welch(high, low) == 0.0
    assert welch(low, high) == welch(low, low) == welch(high, low, 0.25) == 1.0


def test_moments_are_numpys() -> None:
    values = np.random.default_rng(0).random(1000)
    found = moments(values)
    assert found.count == 1000
    assert found.mean == pytest.approx(values.mean())
    assert found.variance == pytest.approx(values.var(ddof=1))
    assert moments([]).mean == moments([0.7]).variance == 0.0


@pytest.mark.parametrize(("level", "share"), [(0.01, 0.25), (0.05, 0.4)])
def test_the_cusum_is_the_largest_sum_of_log_likelihood_ratios_that_ends_now(level: float, share: float) -> None:
    unusual = np.random.default_rng(1).random(400) < share
    typical = level**0.5
    more = typical + 0.2 * (1 - typical)
    ratios = np.log(np.where(unusual, more / typical, (1 - more) / (1 - typical))).clip(max=1.0)
    cusum = Cusum(level)
    for end in range(len(unusual)):
        cusum.add(bool(unusual[end]))
        largest = max(0.0, *(ratios[start : end + 1].sum() for start in range(end + 1)))
        if largest >= HEIGHT:
            assert cusum.raised
            break
        assert cusum.value == pytest.approx(largest)
        assert not cusum.raised
    assert end > 50, "it had something to count"


@pytest.mark.parametrize("typical", [upper_share(0, REFERENCE), 0.05, *map(bearable, LEVELS)])
def test_no_share_up_to_the_typical_one_can_hurry_the_alarm(typical: float) -> None:
    """The bound on the time to a false alarm, exp(HEIGHT) over the number of sums, needs no more than this of a score:
    neither that images are independent nor that one is like the next."""
    cusum = Cusum(ALPHA)
    cusum.expect(typical)
    cusum.value = HEIGHT / 2
    cusum.add(True)
    up = cusum.value - HEIGHT / 2
    cusum.add(False)
    down = cusum.value - HEIGHT / 2 - up
    assert 0.5 < up <= 1.0
    assert down < 0
    for share in np.linspace(0, typical, 20).tolist():
        assert share * math.exp(up) + (1 - share) * math.exp(down) <= 1 + 1e-12
    assert math.exp(HEIGHT) / len(LEVELS) > 200_000


def test_the_typical_share_is_wilsons_bound() -> None:
    for count in (0, 3, 40):
        level = stats.norm.cdf(3.0) - stats.norm.cdf(-3.0)
        interval = stats.binomtest(count, REFERENCE).proportion_ci(level, method="wilson")
        assert upper_share(count, REFERENCE) == pytest.approx(interval.high)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (0.7, 1.3), (1.3, 0.7), (0.7, 0.7), (5, 1)])
def test_known_images_raise_nothing_calibrated_or_not(a: float, b: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(4):
        assert set(states(StreamMonitor(), known(rng, 10_000, a, b))) == {"known"}


def test_bunches_of_like_images_raise_nothing() -> None:
    rng = np.random.default_rng(4)
    laws = ((1.0, 1.0), (0.7, 1.3), (1.3, 0.7))
    bunches = [known(rng, BLOCK, *laws[rng.integers(3)]) for _ in range(20_000 // BLOCK)]
    assert set(states(StreamMonitor(), np.concatenate(bunches))) == {"known"}


@pytest.mark.parametrize("before", [0, 300, 5000])
@pytest.mark.parametrize(("unknown", "mixed"), [(0.6, 0.5), (0.6, 1.0), (0.95, 0.5), (0.95, 1.0)])
def test_a_new_task_is_noticed_within_256_images_and_forgotten_after(before: int, unknown: float, mixed: float) -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        monitor = StreamMonitor()
        assert "new task suspected" not in states(monitor, known(rng, before))
        seen = states(monitor, newcomers(rng, 256, unknown, mixed))
        assert first("new task suspected", seen) <= 256
        assert seen[-1] == "new task suspected"
        assert monitor.since == before + first("new task suspected", seen) - 1
        after = states(monitor, known(rng, REFERENCE + 3 * WINDOW))
        assert "new task suspected" not in after[256:]
        assert after[-1] == "known"


@pytest.mark.parametrize("before", [0, 5000])
@pytest.mark.parametrize(("unusual", "mixed"), [(0.6, 1.0), (0.9, 0.5)])
def test_a_near_stranger_that_is_never_unknown_is_noticed(before: int, unusual: float, mixed: float) -> None:
    """Its images look like some held-out ones, but mostly like the least usual of them: as a 4 does, and a 9."""
    rng = np.random.default_rng(11)
    for _ in range(5):
        monitor = StreamMonitor()
        states(monitor, known(rng, before))
        near = 1 - np.where(rng.random(256) < unusual, rng.uniform(0.01, 0.05, 256), rng.uniform(0.05, 1.0, 256))
        seen = states(monitor, np.where(rng.random(256) < mixed, near, known(rng, 256)))
        assert seen[-1] == "new task suspected"
        found = monitor.to_dict()["cusum"]
        assert (found["level"], found["usual"], found["raised"]) == (0.05, bearable(0.05), True)


def test_bursts_of_the_worst_bearable_class_raise_no_new_task() -> None:
    """Images whose p-values are the squares of uniform ones, for as long as they like, between better ones."""
    rng = np.random.default_rng(12)
    for length in (128, 10_000):
        monitor = StreamMonitor()
        seen: set[State] = set()
        for _ in range(60_000 // length):
            seen |= set(states(monitor, 1 - rng.random(length) ** 2)) | set(states(monitor, known(rng, length)))
        assert "new task suspected" not in seen


def test_what_is_typical_is_raised_where_the_reference_shows_more() -> None:
    rng = np.random.default_rng(13)
    # Fewer than would raise an alarm, but more than is typical elsewhere.
    novelties = np.where(rng.random(REFERENCE) < 0.24, 1 - rng.uniform(0.01, 0.05, REFERENCE), 0.5)
    monitor, plain = StreamMonitor(), StreamMonitor()
    assert set(states(monitor, novelties)) == {"known"}
    assert monitor.to_dict()["cusum"]["usual"] > bearable(0.05)
    states(plain, known(rng, REFERENCE))
    states(plain, np.full(8, 0.97))
    found = plain.to_dict()["cusum"]
    assert (found["level"], found["usual"]) == (0.05, bearable(0.05)), "and never lowered"


def test_a_few_strange_images_are_not_a_task() -> None:
    monitor = StreamMonitor()
    assert set(states(monitor, known(np.random.default_rng(6), 2000))) == {"known"}
    assert set(states(monitor, np.ones(int(HEIGHT) - 4))) == {"known"}
    assert monitor.to_dict()["cusum"]["value"] > HEIGHT / 2


@pytest.mark.parametrize(("a", "b"), [(1, 3), (0.6, 1.5)])
def test_less_usual_but_known_images_are_a_drift_until_they_stop(a: float, b: float) -> None:
    rng = np.random.default_rng(7)
    monitor = StreamMonitor()
    states(monitor, known(rng, REFERENCE + WINDOW))
    seen = states(monitor, known(rng, 6 * WINDOW, a, b))
    assert set(seen) == {"known", "drift"}
    assert 2 * WINDOW <= first("drift", seen) <= 5 * WINDOW
    assert seen[-1] == "drift"
    after = states(monitor, known(rng, 4 * WINDOW))
    assert after[-1] == "known"
    assert first("known", after) == 2 * WINDOW


def test_drift_is_two_tests_in_a_row_of_block_means_against_the_reference() -> None:
    rng = np.random.default_rng(8)
    stream = np.concatenate(
        [known(rng, REFERENCE + 2 * WINDOW), *(known(rng, WINDOW, 1, 1 + rng.random()) for _ in range(60))]
    )
    seen = states(StreamMonitor(), stream)
    blocks = stream.reshape(-1, BLOCK).mean(1)
    reference, rest = blocks[: REFERENCE // BLOCK], blocks[REFERENCE // BLOCK :].reshape(-1, WINDOW // BLOCK)
    drifting, rejected = False, []
    for number, window in enumerate(rest):
        test = stats.ttest_ind(window, reference + MARGIN, equal_var=False, alternative="greater")
        rejected.append(test.pvalue < SIGNIFICANCE)
        if len(rejected) > 1 and rejected[-1] == rejected[-2]:
            drifting = rejected[-1]
        end = REFERENCE + (number + 1) * WINDOW
        assert (seen[end - 1] == "drift") == drifting
    assert {True, False} == set(rejected)
    assert "drift" in seen


def test_newcomers_are_not_taken_for_typical() -> None:
    """A version whose stream is of another task from the start; what is typical is learned when that has ended."""
    rng = np.random.default_rng(9)
    monitor = StreamMonitor()
    states(monitor, newcomers(rng, 3 * REFERENCE, 0.7, 0.6))
    found = monitor.to_dict()
    assert (found["state"], found["welch"]["reference_samples"]) == ("new task suspected", 0)
    assert found["welch"]["reference_mean"] is None
    assert found["cusum"]["usual"] == bearable(found["cusum"]["level"])
    states(monitor, known(rng, 2 * REFERENCE))
    found = monitor.to_dict()
    assert (found["state"], found["welch"]["reference_samples"]) == ("known", REFERENCE)
    assert found["cusum"]["usual"] == bearable(found["cusum"]["level"])
    assert found["welch"]["reference_mean"] == pytest.approx(0.5, abs=0.05)


def test_what_a_task_says_of_an_image_decides_whether_it_is_unknown() -> None:
    monitor = StreamMonitor()
    for _ in range(50):
        monitor.add(0.5, known=False)
    assert (monitor.state, monitor.unknown) == ("new task suspected", 50)
    monitor = StreamMonitor()
    for _ in range(50):
        monitor.add(1.0, known=True)
    assert monitor.unknown == 0
    assert monitor.to_dict()["cusum"]["level"] == 0.05, "what is known may be unusual, but counts for no more"
    monitor = StreamMonitor()
    for _ in range(50):
        monitor.add(0.9, known=True)
    assert (monitor.state, monitor.unknown) == ("known", 0)


def test_it_tells_all_in_a_small_json_object_at_any_time() -> None:
    rng = np.random.default_rng(10)
    monitor = StreamMonitor()
    for part in (known(rng, 0), known(rng, 3000), newcomers(rng, 1000, 0.9, 0.9), np.zeros(2000)):
        states(monitor, part)
        text = json.dumps(monitor.to_dict(), allow_nan=False)
        assert len(text) < 500
        assert json.loads(text)["state"] in STATES
    assert json.loads(text)["samples"] == monitor.samples == 6000
