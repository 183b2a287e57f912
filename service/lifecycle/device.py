"""Device that a service answers on."""

from __future__ import annotations

import logging

import torch

from engram import runtime
from engram.context import choose_device
from service.settings import ServiceSettings

log = logging.getLogger("engram.service")


def serving_device(settings: ServiceSettings) -> torch.device:
    """The device that the settings ask for; raises DeviceMissing."""
    return choose_device(settings.serve_device, "ENGRAM_SERVE_DEVICE")


def prepare(settings: ServiceSettings) -> None:
    """Settle PyTorch's threads, and have the device compute the same bytes every time; raises DeviceMissing."""
    runtime.configure(settings.torch_threads)
    device = serving_device(settings)
    runtime.prepare(device)
    if device.type == "cuda":
        log.info("PyTorch %s answers on %s", torch.__version__, torch.cuda.get_device_name(device))
    elif settings.serve_device != "cpu":
        log.info("PyTorch %s finds no GPU: models answer on the processor", torch.__version__)
