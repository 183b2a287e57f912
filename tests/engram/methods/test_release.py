"""Law of every method: a model that nobody holds is freed at once, without a collection of garbage."""

from __future__ import annotations

import gc
import weakref

import pytest

from testing.data.patterns import QUICK, bars
from tests.engram.methods.test_methods import ALL, again, parts_of


@pytest.mark.parametrize("name", ALL)
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
        assert gc.collect() == 0
    finally:
        gc.enable()
