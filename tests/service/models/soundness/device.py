"""Process that serves a store's model on the second device, and says what it found there."""

from __future__ import annotations

import json
import sys

import torch

from service.models.loaded import load
from service.models.soundness.answers import AnswersGuard
from service.settings import ServiceSettings
from testing.data.models import MODEL
from testing.processes import second_device
from vault.vault import Vault


def main(store: str) -> None:
    device = second_device.register()
    with Vault.connect(ServiceSettings(store_url=store)) as vault:
        model, head = vault.models.get(MODEL), vault.log.head(MODEL)
        assert head is not None
        guard = AnswersGuard(vault)
        first = load(vault, model, head, None, device)
        beside = load(vault, model, head, first, device)
        for loaded in (first, beside):
            guard.require(loaded)
        kept = [[one.task, one.environment["device"], one.baseline] for one in vault.digests.list(model)]
    shape = first.memory.definition.input
    images = torch.arange(4 * shape.channels * shape.height * shape.width).remainder(256).to(torch.uint8)
    images = images.view(4, shape.channels, shape.height, shape.width)
    answers = [one.memory.predict(images) for one in (first, beside, load(vault, model, head))]
    devices = [one.memory.device.type for one in (first, beside)]
    json.dump({"digests": kept, "devices": devices, "alike": answers[0] == answers[1] == answers[2]}, sys.stdout)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
