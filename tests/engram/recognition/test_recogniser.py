"""Tests of the task recogniser: ridge statistics, densities, calibration, and its chain of detectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from engram import Memory
from engram.data.examples import batches
from engram.errors import UnknownTask
from engram.methods.eidetic.method import Eidetic
from engram.nn.network import pixels
from engram.recognition.calibration import fitted_temperature
from engram.recognition.density import Density
from engram.recognition.ridge import RIDGE, GramStatistics, solve
from testing.data.patterns import QUICK, bars, learned


def _features(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def _ridge(phi: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
    """What scikit-learn's own ridge regression finds, each image counting by its weight."""
    rows = np.concatenate([phi.double().numpy(), np.ones((len(phi), 1))], 1)
    scaled = rows * weights.double().sqrt().numpy()[:, None]
    targets = np.eye(int(labels.max()) + 1)[labels.numpy()] * weights.double().sqrt().numpy()[:, None]
    alpha = RIDGE * float((scaled.T @ scaled).diagonal().mean())
    return np.asarray(Ridge(alpha=alpha, fit_intercept=False).fit(scaled, targets).coef_.T)


def test_sums_solve_what_ridge_regression_solves() -> None:
    features, labels = _features(200, 12, 0), torch.arange(200) % 3
    sums = GramStatistics.empty(12, 3).plus(features[:90], labels[:90]).plus(features[90:], labels[90:])
    np.testing.assert_allclose(solve([sums.packed()]).numpy(), _ridge(features, labels, torch.ones(200)), atol=1e-5)


@pytest.mark.parametrize("balanced", [True, False])
def test_tasks_count_by_their_classes_when_balanced(balanced: bool) -> None:
    large, small = (_features(300, 8, 0), torch.arange(300) % 2), (_features(30, 8, 1) + 0.5, torch.arange(30) % 3)
    pieces = [GramStatistics.empty(8, 2).plus(*large).packed(), GramStatistics.empty(8, 3).plus(*small).packed()]
    weights = torch.cat([torch.full((300,), 330 / 5 * 2 / 300), torch.full((30,), 330 / 5 * 3 / 30)])
    expected = _ridge(
        torch.cat([large[0], small[0]]), torch.cat([large[1], small[1] + 2]), weights if balanced else torch.ones(330)
    )
    np.testing.assert_allclose(solve(pieces, balanced=balanced).numpy(), expected, atol=1e-5)


def test_a_task_left_out_is_forgotten_exactly() -> None:
    pieces = [
        GramStatistics.empty(8, 2).plus(_features(50, 8, seed), torch.arange(50) % 2).packed() for seed in range(3)
    ]
    never = [pieces[0], pieces[2]]
    assert torch.equal(solve([piece for piece in pieces if piece is not pieces[1]]), solve(never))


def test_sums_do_not_depend_on_the_order_of_images() -> None:
    features, labels = _features(150, 8, 0), torch.arange(150) % 3
    forward, backward = GramStatistics.empty(8, 3), GramStatistics.empty(8, 3)
    for chosen in batches(150, 40):
        forward = forward.plus(features[chosen], labels[chosen])
    for chosen in reversed(list(batches(150, 60))):
        backward = backward.plus(features[chosen], labels[chosen])
    torch.testing.assert_close(forward.gram, backward.gram, rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(solve([forward.packed()]), solve([backward.packed()]), rtol=1e-5, atol=1e-6)


def test_packing_sums_loses_nothing() -> None:
    sums = GramStatistics.empty(8, 2).plus(_features(30, 8, 0), torch.arange(30) % 2)
    packed = sums.packed()
    assert torch.equal(packed.gram(), sums.gram)
    assert len(packed.triangle) == 9 * 10 // 2


def test_distance_is_mahalanobis_while_all_directions_are_kept() -> None:
    features, labels = _features(300, 6, 1) * torch.arange(1, 7), torch.arange(300) % 2
    features[labels == 1] += 5
    density = Density.fit(features, labels, 2, features[:50])
    centred = torch.cat([features[labels == c] - features[labels == c].mean(0) for c in range(2)]).double().numpy()
    covariance = centred.T @ centred / 298
    covariance = 0.99 * covariance + 0.01 * covariance.diagonal().mean() * np.eye(6)
    for row, distance in zip(features[:20].double().numpy(), density.distance(features[:20]).tolist(), strict=True):
        offsets = [row - features[labels == c].double().numpy().mean(0) for c in range(2)]
        expected = min(float(offset @ np.linalg.solve(covariance, offset)) for offset in offsets)
        assert distance == pytest.approx(expected, rel=1e-3)


def test_p_values_are_small_for_the_unusual_and_uniform_for_the_usual() -> None:
    features, labels = _features(600, 10, 2), torch.zeros(600, dtype=torch.int64)
    density = Density.fit(features[:400], labels[:400], 1, features[400:])
    typical = density.p_value(density.distance(_features(2000, 10, 3)))
    assert 0.4 < float(typical.mean()) < 0.6
    assert 0.02 < float((typical < 0.05).double().mean()) < 0.11
    unusual = density.p_value(density.distance(_features(50, 10, 4) + 6))
    assert float(unusual.max()) <= 1 / 200


def test_a_task_of_few_images_can_say_no_as_well() -> None:
    features, labels = _features(60, 10, 2), torch.zeros(60, dtype=torch.int64)
    density = Density.fit(features[:50], labels[:50], 1, features[50:])
    distances = density.distance(torch.cat([_features(20, 10, 3), _features(20, 10, 4) + 8]))
    p_values = density.p_value(distances)
    assert float(p_values[20:].max()) < 0.01 < float(p_values[:20].median())
    order = distances.argsort()
    assert (p_values[order].diff() <= 1e-6).all(), "the farther away, the smaller"


def test_the_temperature_is_the_one_that_scaled_the_logits() -> None:
    logits = _features(4000, 3, 5) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(6))[:, 0]
    assert float(fitted_temperature(logits * 4, labels)) == pytest.approx(4.0, rel=0.15)


def test_tasks_are_recognised_and_probabilities_add_up() -> None:
    memory = learned("cnn", tasks=3)
    right = total = 0
    for task in range(3):
        examples = bars(task, count=20)
        answers = memory.predict(examples.images, top_k=6)
        for answer in answers:
            assert sum(candidate.probability for candidate in answer.top) == pytest.approx(1.0, abs=1e-4)
            assert answer.top[0].label == answer.label
            assert answer.probability <= answer.task_probability + 1e-6
            assert 0.0 <= answer.novelty <= 1.0
        right += sum(answer.task == f"task {task}" for answer in answers)
        total += len(answers)
    assert right / total > 0.9


def test_a_given_task_skips_recognition() -> None:
    memory = learned("cnn", tasks=2)
    for answer in memory.predict(bars(0).images[:8], task="task 1", top_k=5):
        assert answer.task == "task 1"
        assert answer.task_probability == 1.0
        assert {candidate.label for candidate in answer.top} == {"task 1 class 0", "task 1 class 1"}
    with pytest.raises(UnknownTask):
        memory.predict(bars(0).images[:1], task="nothing")


def test_noise_is_not_known() -> None:
    memory = learned("cnn", tasks=2)
    noise = torch.randint(0, 256, (32, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    known = memory.predict(bars(0).images[:32])
    strange = memory.predict(noise)
    assert np.mean([answer.novelty for answer in strange]) > np.mean([answer.novelty for answer in known])
    assert np.mean([answer.known for answer in known]) > 0.9
    assert np.mean([answer.known for answer in strange]) < 0.5


def test_slices_of_an_observation_answer_alike() -> None:
    memory = learned("cnn", tasks=2)
    observation = memory.observe(bars(0).images[:6])
    assert observation[2:4].predictions() == observation.predictions()[2:4]
    assert torch.equal(observation[2:4].logits("task 1"), observation.logits("task 1")[2:4])


def _eidetic(memory: Memory) -> Eidetic:
    assert isinstance(memory.method, Eidetic)
    return memory.method


def test_the_chain_multiplies_what_each_detector_says() -> None:
    recogniser = _eidetic(learned("mlp", tasks=3, recipe=2)).recogniser
    scores, distances = torch.zeros(4, 6), torch.zeros(4, 3)
    detections = [_features(4, 6, 1), _features(4, 4, 2)]
    alone = replace(recogniser, parts=("chain",))
    found = alone.log_probabilities(scores, distances, detections).exp().double().numpy()
    trust = float(recogniser.trust)
    for row in range(4):
        left, expected = 1.0, []
        for part in detections:
            sharp = np.exp(trust * part[row].double().numpy())
            own = sharp[:2].sum() / sharp.sum()
            expected.append(left * own)
            left *= 1 - own
        np.testing.assert_allclose(found[row], [*expected, left], rtol=1e-4)


def test_detectors_are_ridge_regressions_with_later_tasks_as_negatives() -> None:
    method = _eidetic(learned("mlp", tasks=3, recipe=2))
    sums = method.state.sums
    assert sums is not None
    assert [len(piece.prefixes) for piece in sums] == [1, 2, 3]
    detector = method.recogniser.profiles[0].detector
    assert detector is not None
    assert torch.equal(detector, solve([piece.prefixes[0] for piece in sums]))
    assert method.recogniser.profiles[2].detector is None, "nothing is later than the last"
    seen = method.network(pixels(bars(2).images))[0][0]  # what the first task's prefix makes of the third's images
    theirs = (seen @ detector[:-1] + detector[-1])[:, :2].mean()
    own = (method.network(pixels(bars(0).images))[0][0] @ detector[:-1] + detector[-1])[:, :2].mean()
    assert own > theirs + 0.2


@pytest.mark.parametrize("part", ["ridge", "densities", "chain"])
def test_each_part_recognises_by_itself_and_can_be_left_out(part: str) -> None:
    memory = learned("mlp", tasks=3, settings={"recognise_by": [part]}, recipe=2)
    answers = [answer for task in range(3) for answer in memory.predict(bars(task, count=20).images)]
    right = sum(answer.task == f"task {number // 40}" for number, answer in enumerate(answers))
    assert right / len(answers) > 0.6
    assert (_eidetic(memory).recogniser.profiles[0].detector is not None) == (part == "chain")


def test_a_density_from_sums_is_the_density_of_the_images() -> None:
    features, labels = _features(200, 12, 7) * torch.arange(1, 13), torch.arange(200) % 3
    sums = GramStatistics.empty(12, 3).plus(features, labels)
    by_sums, by_images = Density.from_sums(sums, features[:50]), Density.fit(features, labels, 3, features[:50])
    torch.testing.assert_close(by_sums.distance(features), by_images.distance(features), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(by_sums.quantiles, by_images.quantiles, rtol=1e-3, atol=1e-3)


def test_a_chain_with_a_gap_says_nothing() -> None:
    """Tasks that were learned before there were detectors lack the sums that one needs."""
    memory = learned("mlp", tasks=1, recipe=2)
    method = _eidetic(memory)
    sums = method.state.sums
    assert sums is not None
    method.state = replace(method.state, sums=tuple(replace(piece, prefixes=()) for piece in sums))
    for task in (1, 2):
        memory.learn(f"task {task}", bars(task), QUICK)
    assert [profile.detector is not None for profile in method.recogniser.profiles] == [False, True, False]
    assert len(memory.predict(bars(0).images[:4])) == 4
