"""Tests of loaded networks: bytes as plain PyTorch has them, threads, neighbours, one copy a process."""

from __future__ import annotations

import copy
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from engram.errors import ArchitectureMissing, DamagedWeights
from engram.nn.pretrained.network import built_with, network
from tests.engram.nn.pretrained.drawn import Drawn


def images(count: int, size: int = 64, seed: int = 0) -> Tensor:
    """Noise, uint8 (count, 3, size, size)."""
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_logits_are_those_of_plain_pytorch_to_the_byte(network_file: Drawn) -> None:
    loaded = network(network_file.description, lambda: network_file.file)
    given = images(3)
    seen = loaded.look(given)
    assert seen.logits is not None
    for at in range(3):
        assert torch.equal(seen.logits[at : at + 1], network_file.plain_logits(given[at : at + 1]))
    assert len({tuple(row.tolist()) for row in seen.logits}) == 3, "images are told apart"


def test_levels_are_what_the_modules_put_out(network_file: Drawn) -> None:
    loaded = network(network_file.description, lambda: network_file.file)
    seen = loaded.look(images(2))
    for level, maps in zip(network_file.description.levels, seen.levels, strict=True):
        side = 64 // level.reduction
        assert maps.shape == (2, level.channels, side, side)
        assert maps.dtype == torch.float32
        assert maps.is_contiguous()
    assert seen.features.shape == (2, network_file.description.features)
    head = loaded.module.get_submodule(loaded.classifier)
    assert seen.logits is not None
    assert torch.equal(head(seen.features[:1]), seen.logits[:1])


def test_no_level_is_changed_after_it_was_read(network_file: Drawn) -> None:
    """A module further on that works in place would change what was kept."""
    loaded = network(network_file.description, lambda: network_file.file)
    caught: dict[str, Tensor] = {}
    plain = network_file.module
    handles = [
        plain.get_submodule(level.name).register_forward_hook(
            lambda module, inputs, output, name=level.name: caught.__setitem__(name, output.clone())
        )
        for level in network_file.description.levels
    ]
    try:
        seen = loaded.look(images(1))
        network_file.plain_logits(images(1))
    finally:
        for handle in handles:
            handle.remove()
    for level, maps in zip(network_file.description.levels, seen.levels, strict=True):
        output = caught[level.name]
        if level.layout == "tokens":
            output = output[:, level.prefix :].transpose(1, 2)
        assert torch.equal(output.reshape(maps.shape), maps)


def test_an_image_does_not_depend_on_its_neighbours(network_file: Drawn) -> None:
    loaded = network(network_file.description, lambda: network_file.file)
    given = images(5)
    together, alone = loaded.look(given), loaded.look(given[3:4])
    assert torch.equal(together.features[3:4], alone.features)
    assert all(torch.equal(one[3:4], other) for one, other in zip(together.levels, alone.levels, strict=True))


def test_one_forward_of_all_is_close(network_file: Drawn) -> None:
    loaded = network(network_file.description, lambda: network_file.file)
    apart, together = loaded.look(images(4)), loaded.look_together(images(4))
    torch.testing.assert_close(together.features, apart.features, rtol=1e-3, atol=1e-4)


def test_threads_see_their_own_images(network_file: Drawn) -> None:
    loaded = network(network_file.description, lambda: network_file.file)
    given = [images(1, seed=seed) for seed in range(4)]
    expected = [loaded.look(one).features for one in given]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(pool.map(lambda one: loaded.look(one).features, given))
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_attention_does_not_depend_on_the_setting_of_the_process(vit: Drawn) -> None:
    loaded = network(vit.description, lambda: vit.file)
    before = loaded.look(images(1)).features
    torch.backends.cuda.enable_math_sdp(False)
    try:
        assert torch.equal(loaded.look(images(1)).features, before)
    finally:
        torch.backends.cuda.enable_math_sdp(True)


def test_a_process_has_it_once_and_lets_go_of_it(efficientnet: Drawn) -> None:
    read = []

    def weights() -> bytes:
        read.append(1)
        return efficientnet.file

    gc.collect()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: network(efficientnet.description, weights), range(4)))
    assert len(set(map(id, found))) == 1
    assert len(read) == 1
    named = efficientnet.description.model_copy(update={"licence": "another", "classes": tuple("abcde")})
    assert network(named, weights) is found[0], "names change nothing that is computed"
    found.clear()
    gc.collect()
    state = torch.get_rng_state()
    network(efficientnet.description, weights)
    assert len(read) == 2
    assert torch.equal(torch.get_rng_state(), state), "building draws nothing"


def test_other_bytes_than_were_inspected_are_refused(efficientnet: Drawn, shufflenet: Drawn) -> None:
    other = efficientnet.description.model_copy(update={"weights": "0" * 64})
    with pytest.raises(DamagedWeights, match="hash"):
        network(other, lambda: shufflenet.file)


def test_copies_of_the_module_are_bare_and_nothing_learns(efficientnet: Drawn) -> None:
    loaded = network(efficientnet.description, lambda: efficientnet.file)
    assert not any(one.requires_grad for one in loaded.module.parameters())
    assert not loaded.module.training
    copied = copy.deepcopy(loaded.module)
    pixels = torch.randn(1, 3, 64, 64, requires_grad=True)
    copied(pixels).sum().backward()
    assert pixels.grad is not None
    assert torch.equal(loaded.look(images(1)).features, loaded.look(images(1)).features)


def test_no_weights_are_read_for_an_architecture_that_no_library_has(vit: Drawn) -> None:
    read: list[str] = []

    def weights() -> bytes:
        read.append("weights")
        return vit.file

    gone = vit.description.model_copy(update={"architecture": "timm/no_such_thing"})
    with pytest.raises(ArchitectureMissing, match="no_such_thing"):
        network(gone, weights)
    with pytest.raises(ArchitectureMissing, match="no_such_thing"):
        built_with(gone)
    assert read == []


@pytest.mark.parametrize("change", ["tensors", "levels"])
def test_a_library_that_builds_it_otherwise_is_told_from_a_damaged_file(vit: Drawn, change: str) -> None:
    levels = tuple(level.model_copy(update={"name": f"{level.name}.gone"}) for level in vit.description.levels)
    changes: dict[str, dict[str, Any]] = {
        "tensors": {"architecture": "timm/test_resnet", "arguments": {}},
        "levels": {"levels": levels},
    }
    with pytest.raises(ArchitectureMissing, match="otherwise than timm"):
        network(vit.description.model_copy(update=changes[change]), lambda: vit.file)


def test_no_images_are_seen_as_none(network_file: Drawn) -> None:
    loaded = network(network_file.description, lambda: network_file.file)
    none, one = loaded.look(images(0)), loaded.look(images(1))
    assert none.logits is not None
    assert one.logits is not None
    assert [level.shape[1:] for level in none.levels] == [level.shape[1:] for level in one.levels]
    assert (none.features.shape, none.logits.shape) == ((0, one.features.shape[1]), (0, one.logits.shape[1]))
