"""Tests of connections to Redis that fall silent: jobs are taken again, or the worker ends."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from testing.drills.silence import consumes, run_silence
from testing.processes.processes import eventually
from testing.processes.stack import silenceable


@pytest.mark.parametrize("unix", [pytest.param(False, marks=pytest.mark.slow), True], ids=["tcp", "unix"])
def test_jobs_are_taken_when_the_network_speaks_again_and_when_old_connections_are_dead(
    unix: bool, tmp_path: Path
) -> None:
    with silenceable(tmp_path, unix=unix) as (stack, proxy):
        for seconds, old in ((3.0, True), (0.0, False)):
            found = run_silence(stack, proxy, seconds, old=old, pause=0.1)
            assert found.failures == []
            assert found.job == "succeeded"
            assert not found.restarted


def test_a_consumer_that_no_message_reaches_is_told_and_ends(tmp_path: Path) -> None:
    with silenceable(tmp_path, ENGRAM_DEAF_SECONDS="5") as (stack, proxy):
        assert eventually(partial(consumes, stack), 120), "the worker does not say that it consumes"
        proxy.mute = b"BRPOP"  # whatever connection it opens, only that one is not answered
        assert stack.worker.wait(120) == os.EX_TEMPFAIL
        assert not consumes(stack)
        assert "the broker has not answered for" in (tmp_path / "worker.log").read_text()
