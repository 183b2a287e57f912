"""Tests of the task sequences."""

from pathlib import Path

import pytest
import torch

from benchmarks.harness.datasets import (
    CIFAR10_ORDER,
    MissingData,
    Sizes,
    permuted_mnist,
    rnf_cifar,
    rnf_digits,
    single_mnist,
    split_cifar10,
    split_cifar100,
    split_mnist,
)
from tests.benchmarks.small import CIFAR10, write_archive, write_mnist

ALL = Sizes()


def test_split_mnist_has_two_digits_in_each_task(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    tasks = split_mnist(tmp_path, ALL)
    assert [examples.classes for examples in tasks.train] == [(str(2 * t), str(2 * t + 1)) for t in range(5)]
    assert (tasks.shape.channels, tasks.shape.height, tasks.shape.width) == (1, 28, 28)
    for task, (train, test) in enumerate(zip(tasks.train, tasks.test, strict=True)):
        for examples, base, count in ((train, 0, 6), (test, 100, 3)):
            digits = 2 * task + examples.labels
            assert examples.counts() == (count, count)
            assert torch.equal((examples.images[:, 0, 5, 5].long() - base) // 10, digits)


def test_single_mnist_has_one_digit_in_each_task(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    tasks, pairs = single_mnist(tmp_path, ALL), split_mnist(tmp_path, ALL)
    assert [examples.classes for examples in tasks.test] == [(str(digit),) for digit in range(10)]
    both = torch.cat([tasks.train[4].images, tasks.train[5].images])
    assert {*map(bytes, both.numpy())} == {*map(bytes, pairs.train[2].images.numpy())}


def test_a_subset_has_so_many_of_each_class_and_is_always_the_same(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    some, again = (split_mnist(tmp_path, Sizes(train=4, test=2)) for _ in range(2))
    assert {examples.counts() for examples in some.train} == {(4, 4)}
    assert {examples.counts() for examples in some.test} == {(2, 2)}
    assert all(torch.equal(a.images, b.images) for a, b in zip(some.train, again.train, strict=True))


def test_permuted_mnist_moves_the_same_pixels_in_every_image_of_a_task(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    tasks, plain = permuted_mnist(tmp_path, ALL), split_mnist(tmp_path, ALL)
    assert len(tasks.train) == len(tasks.test) == 10
    assert {examples.classes for examples in tasks.train} == {tuple(str(digit) for digit in range(10))}
    assert torch.equal(tasks.train[0].images[:12], plain.train[0].images)
    marks = []
    for train, test in zip(tasks.train, tasks.test, strict=True):
        marked = torch.cat([train.images, test.images]).flatten(1) == 255  # (N, 784)
        assert torch.equal(marked.sum(1), torch.ones(90, dtype=torch.int64))
        places = marked.int().argmax(1)
        assert int(places.min()) == int(places.max())
        marks.append(int(places[0]))
    assert marks[0] == 0
    assert len(set(marks)) > 5
    assert marks == [int(e.images[0].flatten().argmax()) for e in permuted_mnist(tmp_path, ALL).train]


def test_split_cifar10_keeps_the_usual_order_whatever_the_archives(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar10.tar.xz", CIFAR10)
    tasks = split_cifar10(tmp_path, ALL)
    assert tuple(name for examples in tasks.train for name in examples.classes) == CIFAR10 == CIFAR10_ORDER
    assert tasks.train[0].images.shape == (6, 3, 32, 32)
    for task, (train, test) in enumerate(zip(tasks.train, tasks.test, strict=True)):
        for examples, green in ((train, 0), (test, 200)):
            red = 10 * (2 * task + examples.labels)
            assert int((examples.images[:, 0, 16, 16].long() - red).abs().max()) <= 4
            assert int((examples.images[:, 1, 16, 16].long() - green).abs().max()) <= 4


def test_rnf_s_order_starts_with_all_of_cifar10(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar10.tar.xz", CIFAR10, train=1, test=1)
    write_archive(tmp_path / "cifar100.tar.xz", tuple(f"class {n:02d}" for n in range(100)), train=1, test=1)
    tasks, split = rnf_cifar(tmp_path, ALL), split_cifar100(tmp_path, ALL)
    assert tasks.train[0].classes == CIFAR10
    assert [examples.classes for examples in tasks.train[1:]] == [examples.classes for examples in split.train[:5]]
    assert len(split.train) == 10
    assert sorted(split.labels) == [f"class {n:02d}" for n in range(100)]
    assert list(split.labels) != sorted(split.labels)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"mnist\.npz is missing"):
        split_mnist(tmp_path, ALL)
    with pytest.raises(MissingData, match=r"cifar10\.tar\.xz is missing"):
        split_cifar10(tmp_path, ALL)
    write_archive(tmp_path / "cifar10.tar.xz", CIFAR10[:9], train=1, test=1)
    with pytest.raises(MissingData, match="truck"):
        split_cifar10(tmp_path, ALL)


def test_rnf_digits_has_photographs_first_and_then_framed_digits(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar10.tar.xz", CIFAR10)
    write_mnist(tmp_path)
    tasks, split, permuted = rnf_digits(tmp_path, ALL), split_cifar10(tmp_path, ALL), permuted_mnist(tmp_path, ALL)
    assert tasks.shape == split.shape
    assert [len(examples.classes) for examples in tasks.train] == [10] * 6
    assert len(tasks.test) == 6
    assert tasks.train[0].classes == CIFAR10_ORDER
    for framed, digits in zip(tasks.train[1:] + tasks.test[1:], permuted.train[:5] + permuted.test[:5], strict=True):
        assert framed.images.shape == (len(digits.images), 3, 32, 32)
        assert torch.equal(framed.images[:, :, 2:-2, 2:-2], digits.images.expand(-1, 3, -1, -1))
        assert torch.equal(framed.images.sum((2, 3)), digits.images.sum((2, 3)).expand(-1, 3))
        assert torch.equal(framed.labels, digits.labels)
