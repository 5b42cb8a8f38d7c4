"""Every request that a run makes of a store may fail, in every way in which requests do: the run does not notice, or
the same command then ends with the one right result."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from faulty_proxy import Fault, Request
from store_jobs import StoreJob, assert_result

RUN, SECOND = "20260101T000000-aaaaaa", "20260101T000000-bbbbbb"
READS = 6
"""Requests that only look, of those that are denied in turn."""

CHANGES = {"gs": 100, "s3": 8}
"""Requests that change something, at most: the emulator of S3 is slow."""


def some(store, among: list[int], most: int) -> list[int]:
    return random.Random(store.scheme).sample(among, min(most, len(among)))


def kind(request: Request) -> str:
    """What a request is to the protocol: without what is another in each run."""
    target = re.sub(r"(?<=[/F]|-)[0-9a-f]{8,12}(?=[-./?]|$)|\d{16}|(?<=%22)[0-9a-f]{32}", "ID", request.target)
    return f"{request.method} {target}"


@pytest.fixture
def requests(store) -> list[Request]:
    """The requests of an undisturbed run of one split."""
    job = StoreJob(store.url("calm"), splits=1)
    job.launch(RUN)
    assert_result(job, RUN)
    return [r for r in store.proxy.requests if "calm" in r.target]


def denied(call: Callable, *arguments: object) -> PermissionError | None:
    """What a call raises; None where it had no need of what was denied."""
    try:
        call(*arguments)
    except PermissionError as error:
        return error
    return None


@pytest.mark.parametrize("how", ["status", "reset", "lost"])
def test_a_run_whose_every_request_fails_once_does_not_notice(store, how):
    job = StoreJob(store.url("out"), splits=2)
    with store.proxy.failing(fault := Fault(how, each=True)):
        assert job.launch(RUN).code == 0
    assert fault.done > 30
    assert_result(job, RUN)


def test_the_answer_to_any_change_may_be_lost(store, requests):
    changes = [n for n, r in enumerate(requests, 1) if r.method not in ("GET", "HEAD")]
    assert len(changes) > 10
    for nth in some(store, changes, CHANGES[store.scheme]):
        job = StoreJob(store.url(f"lost-{nth}"), splits=1)
        with store.proxy.failing(fault := Fault("lost", target=f"lost-{nth}\\b", nth=nth)):
            assert job.launch(RUN).code == 0
        assert fault.done == 1
        assert_result(job, RUN)


def test_the_same_command_goes_on_after_any_request_was_denied(store, requests):
    """Which is as if the process had died there."""
    of_kind: dict[str, int] = {}
    for nth, request in enumerate(requests, 1):
        of_kind.setdefault(kind(request), nth)
    changes = [nth for what, nth in of_kind.items() if not what.startswith(("GET", "HEAD"))]
    reads = [nth for nth in of_kind.values() if nth not in changes]
    failures = 0
    for nth in some(store, changes, CHANGES[store.scheme]) + some(store, reads, READS):
        job = StoreJob(store.url(f"denied-{nth}"), splits=1)
        with store.proxy.failing(Fault("status", target=f"denied-{nth}\\b", nth=nth, times=10_000, status=403)):
            raised = denied(job.launch, RUN)
        assert raised is None or (raised.filename.startswith(job.output) and "denied" in raised.strerror)
        failures += raised is not None
        job.launch(SECOND)
        assert_result(job)
    assert failures > READS
