"""Roles that are killed or stopped while events flow: nothing is lost, nothing counts twice."""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.integration.outside import ROLES, Up, until
from tests.integration.traffic import Traffic, click_is_answered


def restart(stack: Up, role: str, after_s: float = 0.0) -> None:
    """Kill a role, wait until another process has its place, and then so long."""
    pid = stack.kill(role)
    until(lambda: stack.pids().get(role, pid) != pid, 10, lambda: stack.said)
    time.sleep(after_s)


def until_ready(stack: Up, role: str) -> None:
    until((stack.data / "ready" / role).exists, 60, lambda: stack.said)


def test_roles_that_are_killed_come_back_and_the_counts_are_exact(stack: Up) -> None:
    with Traffic(stack.client, "killed") as traffic:
        time.sleep(2.5)  # until there are checkpoints
        for role in ROLES:
            restart(stack, role)
            until_ready(stack, role)
        time.sleep(1)
    traffic.is_counted_exactly()
    click_is_answered(stack.client, "after-killed", lambda: stack.said)
    for role in ROLES:
        assert re.search(rf"{role} ended \(signal SIGKILL\) after [\d.]+ s; starting it again", stack.said)


@pytest.mark.slow
def test_rank_killed_twice_goes_on_from_its_checkpoint_and_counts_exactly(stack: Up) -> None:
    with Traffic(stack.client, "twice") as traffic:
        time.sleep(2.5)
        restart(stack, "rank", after_s=0.7)  # in the middle of its start
        restart(stack, "rank")
        until_ready(stack, "rank")
        time.sleep(1)
    traffic.is_counted_exactly()
    click_is_answered(stack.client, "after-twice", lambda: stack.said)
    log = (stack.data / "logs" / "rank.log").read_text()
    starts = [int(n) for n in re.findall(r"events\[\d\]: from (\d+), quiet", log)]
    assert min(starts[-4:]) > 0


@pytest.mark.slow
def test_rank_stopped_for_longer_than_its_session_counts_exactly(stack: Up) -> None:
    with Traffic(stack.client, "asleep") as traffic:
        time.sleep(1)
        stack.kill("rank", signal.SIGSTOP)
        time.sleep(4)
        stack.kill("rank", signal.SIGCONT)
        time.sleep(1)
    traffic.is_counted_exactly()
    click_is_answered(stack.client, "after-asleep", lambda: stack.said)
