"""Law of every method: a model that nobody holds is freed at once, without a collection of garbage."""

from __future__ import annotations

import gc
import weakref

import pytest

from testing.data.patterns import QUICK, bars
from tests.engram.methods.test_methods import ALL, SLOWLY, again, parts_of


@pytest.mark.parametrize("name", SLOWLY)
def test_what_nobody_holds_is_freed_without_a_collection(name: str) -> None:
    memory = again(parts_of(name))
    memory.predict(bars(0).images)
    memory.explain(bars(0).images[0])
    memory.learn("task 2", bars(2), QUICK)
    memory.predict(bars(2).images)
    gc.collect()
    gc.disable()
    try:
        model, method = weakref.ref(memory), weakref.ref(memory.method)
        del memory
        assert model() is None
        assert method() is None
        assert left_over() == []
    finally:
        gc.enable()


def left_over() -> list[str]:
    """What only a collection frees, and is engram's or PyTorch's: threads of other tests leave things of their own."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        modules = {str(getattr(one, "__module__", None) or type(one).__module__) for one in gc.garbage}
        return sorted(name for name in modules if name.partition(".")[0] in ("engram", "torch"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_what_only_a_collection_frees_is_found() -> None:
    memory = again(parts_of(next(iter(ALL))))
    memory.__dict__["itself"] = memory
    gc.collect()
    del memory
    assert "engram.memory" in left_over()
