"""What is wrong with the environment's settings, in sentences for whoever set them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_settings import SettingsError

from vault.settings import LogSettings

PREFIX = str(LogSettings.model_config["env_prefix"])


@contextmanager
def told() -> Iterator[None]:
    """End the program with the status 78 and a line for each setting that does not fit, instead of a traceback.

    The status says so to whoever would start it again (`EX_CONFIG` of sysexits.h).

    Values are left out: they may be secret.
    """
    try:
        yield
    except ValidationError as error:
        if error.title not in _names(LogSettings):
            raise
        for one in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join(str(part) for part in one["loc"][1:])
            name = PREFIX + str(one["loc"][0]).upper() + (f" at {where}" if where else "")
            print(f"{name} cannot be used: {one['msg']}.", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from error
    except SettingsError as error:
        # It names the field in a text of its own, and what it came from does not.
        field = str(error).partition('"')[2].partition('"')[0]
        print(f"{PREFIX}{field.upper()} cannot be used: it is not JSON.", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from error


def _names(kind: type[LogSettings]) -> set[str]:
    """Of all classes of settings that this process knows."""
    found = {kind.__name__}
    for below in kind.__subclasses__():
        found |= _names(below)
    return found
