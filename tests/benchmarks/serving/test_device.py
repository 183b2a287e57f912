"""Tests of the laws that a device is held to, on the processor, and of their failing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.serving import device
from benchmarks.serving.device import CPU, laws
from engram.methods.eidetic.staged.served_task import ServedTask
from service.settings import ServiceSettings
from testing.data.models import MODEL
from tests.service.conftest import learned_settings, learned_store, settings
from vault.vault import Vault

__all__ = ["learned_settings", "learned_store", "settings"]


def images(vault: Vault) -> Tensor:
    shape = vault.models.get(MODEL).definition["input"]
    generator = torch.Generator().manual_seed(0)
    size = (16, shape["channels"], shape["height"], shape["width"])
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


def found(settings: ServiceSettings) -> dict[str, Any]:
    with Vault.connect(settings) as vault:
        head = vault.log.head(MODEL)
        assert head is not None
        return laws(vault, MODEL, head.version, CPU, images(vault))


def test_all_laws_hold_on_the_processor(learned_settings: ServiceSettings) -> None:
    assert found(learned_settings) == {
        "earlier": True,
        "again": True,
        "rows": True,
        "loaded": True,
        "commons": True,
        "near": True,
        "alike": 1.0,
    }


def test_a_device_whose_answers_depend_on_the_row_breaks_that_law_alone(
    learned_settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = ServedTask._values

    def by_row(self: ServedTask, *given: Any) -> tuple[Tensor, Tensor]:
        features, logits = true(self, *given)
        return features, logits + 1e-6 * torch.arange(len(logits))[:, None]

    monkeypatch.setattr(ServedTask, "_values", by_row)
    wrong = [law for law, holds in found(learned_settings).items() if holds is False]
    assert wrong == ["rows"]


def test_the_table_has_learning_in_mixed_precision_where_a_device_has_it() -> None:
    common: dict[str, Any] = {"network": "mlp28", "laws": {}, "ms": {}, "requests": {}}
    learned = {"seconds": 2.0, "accuracy": 0.5}
    rows = [
        {**common, "device": "cpu", "learning": learned, "mixed": None},
        {**common, "device": "cuda", "learning": learned, "mixed": {"seconds": 1.0, "accuracy": 0.75}},
    ]
    made = device.table(rows)
    assert list(made.columns[0].cells)[2] == "learning in mixed precision, seconds"
    assert list(made.columns[1].cells) == ["2.0", "50.0%", "–", "–"]
    assert list(made.columns[2].cells) == ["2.0", "50.0%", "1.0", "75.0%"]


def test_a_gpu_that_is_not_there_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    for devices, status in (("cpu,cuda", 0), ("cuda", 1)):
        assert device.main(["--devices", devices, "--rows", "", "--cache", str(tmp_path)]) == status
        assert "cuda is left out" in capsys.readouterr().err
