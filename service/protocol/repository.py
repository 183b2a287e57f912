"""Models and versions as the Open Inference Protocol lists them."""

from __future__ import annotations

from anyio import to_thread

from service.dependencies import Runtime
from service.errors.exceptions import InvalidRequest
from service.errors.parameters import check
from service.middleware.body_limits import parse_json
from service.models.loaded import LoadedVersion
from service.models.soundness.readiness import DETAILS
from service.protocol.inference import loaded_version
from vault.classes.class_index import ClassIndex


async def ready(parts: Runtime, model: str, version: int | None) -> bool:
    """Whether a version is loaded, warmed up and can answer; raises as `loaded_version`."""
    return bool((await loaded_version(parts, model, version)).memory.tasks)


async def described(parts: Runtime, model: str, version: int | None) -> tuple[LoadedVersion, list[int], ClassIndex]:
    """A version, all versions that can be asked, and its class index.

    Raises
    ------
    VaultError
        As `loaded_version`, and where what the model has learned so far cannot be read.
    """
    loaded = await loaded_version(parts, model, version)
    versions = await to_thread.run_sync(parts.vault.classes.answering, model)
    return loaded, versions, await to_thread.run_sync(parts.vault.classes.of, model, loaded.version)


def index(parts: Runtime, body: bytes) -> list[dict[str, str]]:
    """The models, with what keeps those from answering that do not; `{"ready": true}` lists only those that do.

    Raises
    ------
    InvalidJson, InvalidRequest, UnknownParameter
    """
    asked = parse_json(body, "The body") if body.strip() else {}
    if not isinstance(asked, dict):
        raise InvalidRequest("The body is no JSON object.")
    check(asked, {"ready"}, "field", ("body",))
    if not isinstance(only_ready := asked.get("ready", False), bool):
        raise InvalidRequest("ready is neither true nor false.")
    return listed(parts, only_ready=only_ready)


def listed(parts: Runtime, *, only_ready: bool) -> list[dict[str, str]]:
    """The models by name, or only those that can answer."""
    found = [_live(loaded) for loaded in parts.live.models()]
    live = {one["name"] for one in found}
    for name in parts.live.troubled() - live:
        details = [problem.detail for problem in parts.live.problems(name)]
        found.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": " ".join(details)})
    return sorted((one for one in found if not only_ready or one["state"] == "READY"), key=lambda one: one["name"])


def _live(loaded: LoadedVersion) -> dict[str, str]:
    about = {"name": loaded.name, "version": str(loaded.version)}
    if not loaded.memory.tasks:
        return about | {"state": "UNAVAILABLE", "reason": DETAILS["nothing_learned"]}
    return about | {"state": "READY", "reason": ""}
