"""Plan of one run: benchmark, method, scale, seed, definition and options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.harness.datasets import Sizes
from benchmarks.harness.presets import BASELINES, Scale, preset, sizes
from engram import Definition, InputShape, LearnOptions


class BadOverride(Exception):
    """An invalid `--set`; the message is shown to the user."""


@dataclass(frozen=True)
class Plan:
    """Everything that determines the figures of a run, apart from the code and the machine."""

    benchmark: str
    method: str
    scale: Scale
    interface: str
    device: str
    seed: int
    sizes: Sizes
    definition: dict[str, Any]
    """Fields of `Definition`, without input, method and seed."""
    options: dict[str, Any]
    """Fields of `LearnOptions`."""
    overrides: tuple[str, ...] = ()
    """The overrides of the preset, as given."""

    @property
    def key(self) -> str:
        """Identifier of the run: a hash of all fields; overrides count by their values."""
        fields = {name: value for name, value in asdict(self).items() if name != "overrides"}
        if self.method not in BASELINES:
            fields["recipe"] = Definition.model_fields["recipe"].default  # another one learns otherwise
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def model(self, shape: InputShape) -> Definition:
        """The model's definition; that of a baseline describes its network only.

        Raises
        ------
        ValidationError
            for a method, field or value that the definition does not know.
        """
        fields = dict(self.definition)
        if self.method in BASELINES:
            fields.pop("settings", None)
        else:
            fields["method"] = self.method
        return Definition.model_validate({**fields, "input": shape, "seed": self.seed})

    def learning(self) -> LearnOptions:
        """The options with which every task is learned.

        Raises
        ------
        ValidationError
        """
        return LearnOptions.model_validate(self.options)


def make_plan(
    benchmark: str, method: str, scale: Scale, interface: str, device: str, seed: int, overrides: Sequence[str]
) -> Plan:
    """The plan of a preset with overrides.

    Parameters
    ----------
    overrides
        As in `overridden`.

    Raises
    ------
    BadOverride
    """
    found = preset(benchmark, scale, method)
    definition: dict[str, Any] = json.loads(json.dumps(found.definition))  # a deep copy, as plain JSON
    options = dict(found.options)
    definition, options = overridden(definition, options, overrides)
    taken = sizes(benchmark, scale)
    return Plan(benchmark, method, scale, interface, device, seed, taken, definition, options, tuple(overrides))


def overridden(
    definition: Mapping[str, Any], options: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of `Definition` and of `LearnOptions` with overrides.

    Parameters
    ----------
    overrides
        `name=value`: a field of `LearnOptions` or of `Definition`, `settings.name` for one of the method's own, or
        `commons.name`; the value is JSON, or else text.

    Raises
    ------
    BadOverride
    """
    definition, options = dict(definition), dict(options)
    for override in overrides:
        name, sign, text = override.partition("=")
        outer, dot, inner = name.partition(".")
        if not sign or name in ("seed", "method", "input"):
            raise BadOverride(f"--set {override}: it takes name=value; method and seeds have options of their own")
        if dot and outer in Definition.model_fields:
            if isinstance(definition.get(outer), list):
                raise BadOverride(f"--set {override}: {outer} is a list here; give all of it")
            definition[outer] = {**definition.get(outer, {}), inner: _value(text)}
        elif name in LearnOptions.model_fields:
            options[name] = _value(text)
        elif name in Definition.model_fields:
            definition[name] = _value(text)
        else:
            raise BadOverride(f"--set {override}: neither LearnOptions nor Definition has a field {name}")
    return definition, options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
