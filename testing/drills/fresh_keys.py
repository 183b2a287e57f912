"""Schemathesis hooks that give every request of a sequence a new idempotency key.

A request repeated under its key gets the recorded answer. So a model is created, deleted, and "created" once more by an
answer without effect, and Schemathesis would then expect the model. Loaded through `SCHEMATHESIS_HOOKS`.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import schemathesis
from schemathesis import Case, HookContext

HEADER = "Idempotency-Key"
VALID = re.compile(r"[!-~]{1,255}")

_numbers = itertools.count()


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """Replace a valid key by a number; an invalid key stays, since it must be refused."""
    in_sequence = case.meta is not None and case.meta.phase.name == "stateful"
    if in_sequence and HEADER in case.headers and VALID.fullmatch(str(case.headers[HEADER])):
        case.headers[HEADER] = f"key-{next(_numbers)}"
