"""Proof that learning changed no answer, made before anything is published."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

from engram.certificate import Certificate, certify, compare
from engram.errors import RetentionViolated
from engram.memory import Memory, restore
from engram.snapshot import Parts
from vault.commit_log import Commit
from vault.vault import Vault

log = logging.getLogger("engram.worker")


def before_learning(vault: Vault, head: Commit, memory: Memory) -> Certificate:
    """What the model answers to the probes today, which has to be what the version's own certificate says.

    Raises
    ------
    RetentionViolated
        In the environment that it was certified in, the version no longer answers with the certified bytes.
    """
    now = certify(memory)
    if head.certificate is None:
        return now
    stored = Certificate.from_dict(json.loads(vault.objects.get_blob(head.certificate)))
    if stored.environment != now.environment:
        log.info("version %d was certified in another environment; its digests are made again here", head.version)
    elif memory.exact and (changed := compare(stored, now)):
        raise RetentionViolated(f"{', '.join(changed)} no longer answers as certified for version {head.version}")
    return replace(now, routing=stored.routing, answers=stored.answers)


def verify(parts: Parts, before: Certificate, task: str, recognised: float) -> Certificate:
    """The new version's certificate, made from its bytes as any service will read them.

    Parameters
    ----------
    task, recognised
        The new task, and the share of its held-out images that the recogniser gives to it.

    Raises
    ------
    RetentionViolated
        The method is exact, and some task answers the probes with other bytes than before learning.
    """
    rebuilt = restore(parts.definition, parts.engrams, parts.recogniser, None, parts.budget)
    proof = certify(rebuilt, {**before.routing, task: {"recognised_when_learned": recognised}}, before.answers)
    if rebuilt.exact and (changed := compare(before, proof)):
        raise RetentionViolated(f"answers of {', '.join(changed)} would change; nothing was published")
    return proof
