"""For Schemathesis (`SCHEMATHESIS_HOOKS`): in sequences of requests no idempotency key comes again.

A request made again under its key is answered as it was, so that a model is made, deleted, and "made" once more by an
answer that only says what was. Schemathesis would then look for the model.
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
    """Put a number in the place of a key; what is no key stays, since it is to be refused."""
    in_sequence = case.meta is not None and case.meta.phase.name == "stateful"
    if in_sequence and HEADER in case.headers and VALID.fullmatch(str(case.headers[HEADER])):
        case.headers[HEADER] = f"key-{next(_numbers)}"
