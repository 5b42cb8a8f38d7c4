"""A new version takes over only if it keeps its bounds, and the way back is short.

The tests share a server. Each adds versions with higher numbers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import stat
from collections import Counter
from typing import Any

import jobs
import models
import pytest
from prometheus_client.parser import text_string_to_metric_families
from versioned import KINDS, ROW, Versions, answers, asked, available, error, factor, states, until

from beam_score.pipeline.job.rollout import Rollout
from beam_score.pipeline.serve.answering.answer import Answer, Request
from beam_score.pipeline.serve.reports.accounts import Account
from beam_score.pipeline.serve.versions.agree import answers_agree
from beam_score.pipeline.serve.versions.trial import Observation, Trial


@pytest.fixture(scope="module")
def numbers():
    return itertools.count(1)


@pytest.fixture(scope="module")
def versions(tmp_path_factory, numbers):
    made = Versions(tmp_path_factory.mktemp("rollout") / "of")
    made.publish(next(numbers))
    (made.folder / "golden.jsonl").write_text('{"x": 1}\n{"x": 2.5}\n{"x": 5000}\n')
    models.scaled_but_fails(made.folder / "fails")
    return made


@pytest.fixture(scope="module")
def server(versions):
    with versions.served() as running:
        yield running
        assert running.end() == 0


@pytest.fixture
def current(server, versions, numbers):
    """A version that answers, the only one that is there."""
    return versions.only(server, next(numbers))


def test_a_version_that_differs_on_golden_rows_does_not_take_over(server, versions, numbers, current):
    versions.reload(server, rollout={"compare": str(versions.folder / "golden.jsonl")})
    new = next(numbers)
    versions.publish(new)
    until(lambda: states(server).get(new) == "END")
    # The third row is refused by both, for the same reason.
    assert f"differs from version {current} on 2 of 3 golden rows" in error(server, new)
    assert answers(server, current)
    same = next(number for number in numbers if factor(number) == factor(current))
    versions.publish(same)
    until(lambda: answers(server, same))
    assert same >= current + KINDS
    assert f"m: version {same} answers all 3 golden rows as version {current} does" in versions.log


def test_a_file_of_golden_rows_is_checked(server, versions, current):
    (versions.folder / "bad.jsonl").write_text('{"x": 1}\n{"x"\n')
    for name, problem in (("bad.jsonl", "row 2 is not JSON"), ("none.jsonl", "No such file")):
        versions.reload(server, wait=False, rollout={"compare": str(versions.folder / name)})
        until(lambda problem=problem: problem in versions.log)
    assert answers(server, current)


def test_the_version_before_stays_and_an_operator_goes_back_to_it(server, versions, numbers, current):
    versions.reload(server, rollout={"keep_previous": 1})
    new = next(numbers)
    versions.publish(new)
    until(lambda: answers(server, new))
    assert available(server) == {current, new}
    ready = versions.folder / "ready"
    assert stat.S_IMODE(os.stat(f"{ready}.admin").st_mode) == 0o600
    job = str(versions.folder / "job.yaml")
    reverted = jobs.cli("serve", job, "--ready-file", str(ready), "--revert", "m")
    assert reverted.returncode == 0 and f"version {current} of m answers" in reverted.stdout, reverted
    assert answers(server, current)
    until(lambda: states(server)[new] == "END")
    assert error(server, new) == f"version {new} was reverted by hand"
    again = jobs.cli("serve", job, "--ready-file", str(ready), "--revert", "m")
    assert again.returncode == 2 and "no other version of m is loaded" in again.stderr
    third = next(numbers)
    versions.publish(third)
    until(lambda: answers(server, third))
    # A version that is removed is not kept, even as the one before.
    fourth = next(numbers)
    versions.publish(fourth)
    until(lambda: answers(server, fourth))
    versions.remove(third)
    until(lambda: available(server) == {fourth})


def test_a_canary_answers_its_share_and_then_all(server, versions, numbers, current):
    versions.reload(server, rollout={"canary": "30%", "hold": 15})
    new = next(numbers)
    versions.publish(new)
    until(lambda: new in available(server))
    first = {f"id-{i}": asked(server, id_=f"id-{i}")[0] for i in range(100)}
    again = {id_: asked(server, id_=id_)[0] for id_ in list(first)[:20]}
    share = Counter(first.values())
    if states(server)[current] == "AVAILABLE":  # the machine was fast enough
        assert 15 <= share[new] <= 45 and share[current] + share[new] == 100
        assert all(first[id_] == number for id_, number in again.items())
    until(lambda: all(asked(server)[0] == new for _ in range(20)))
    until(lambda: available(server) == {new})
    for step in ("answers 30% of the requests and copies of 0%, for 15 s", "has kept its bounds for 15 s"):
        assert f"m: version {new} {step}" in versions.log
    assert f"m: version {new} answers, in place of version {current}" in versions.log


def test_a_canary_that_fails_is_reverted(server, versions, numbers, current):
    versions.reload(server, rollout={"canary": "50%", "hold": 600})
    bad = next(numbers)
    versions.publish(bad, versions.folder / "fails")
    until(lambda: bad in available(server))
    found = Counter(server.post("/predict", ROW).status_code for _ in range(60))
    assert found[400] >= 10 and found[200] >= 10
    until(lambda: states(server)[bad] == "END")
    assert "requests failed" in error(server, bad) and answers(server, current)


def test_a_version_that_fails_after_it_took_over_is_reverted(server, versions, numbers, current):
    versions.reload(server, rollout={"keep_previous": 1, "hold": 600})
    bad = next(numbers)
    versions.publish(bad, versions.folder / "fails")
    until(lambda: bad in available(server))
    until(lambda: server.post("/predict", ROW).status_code == 200 and states(server)[bad] != "AVAILABLE")
    assert "requests failed" in error(server, bad) and answers(server, current)


def test_a_shadow_is_asked_too_and_its_differences_are_counted(server, versions, numbers, current):
    versions.reload(server, rollout={"shadow": "100%", "hold": 6})
    new = next(numbers)
    versions.publish(new)
    until(lambda: new in available(server))
    before = [asked(server)[0] for _ in range(10)]
    until(lambda: answers(server, new))
    until(lambda: f"m: copies of requests to version {new}: " in versions.log)
    results = shadows(server, new)
    assert before.count(current) <= sum(results.values()) and set(results) == {"different"}
    assert f"as version {current} does: different" in versions.log
    assert f"m: copies of requests to version {new}: {int(results['different'])} different" in versions.log


def shadows(server, number):
    families = text_string_to_metric_families(server.get("/metrics").text)
    samples = [s for family in families for s in family.samples if s.name == "beam_score_shadow_requests_total"]
    return {s.labels["result"]: s.value for s in samples if s.labels["version"] == str(number)}


def test_states_are_metrics(server, versions, current):
    until(lambda: labelled(server, "beam_score_model_state", "state") == states(server))
    # A version before may still answer what it has accepted.
    until(lambda: list(labelled(server, "beam_score_model_info", "sha256")) == [current])


def labelled(server, name, label):
    """Return the value of a label of a metric, by version."""
    families = {family.name: family.samples for family in text_string_to_metric_families(server.get("/metrics").text)}
    return {int(sample.labels["version"]): sample.labels[label] for sample in families[name]}


class _Served:
    """The part of a version that an observation looks at."""

    def __init__(self):
        self.account, self.version = Account("people", 1, []), json.loads("{}")


def _version(number: int) -> Any:
    return type("Version", (), {"number": number, "name": "m"})


class _Waits(_Served):
    """It answers once it is told to."""

    def __init__(self):
        super().__init__()
        self.version, self.told = _version(2), asyncio.Event()

    async def answer(self, *_: object) -> Answer:
        await self.told.wait()
        return Answer(200, b"{}")


def test_the_results_of_copies_are_logged_once_all_are_answered(caplog):
    async def copies() -> str:
        new, old = _Waits(), _Served()
        old.version = _version(1)
        trial = Trial(new, old, Rollout(shadow=1.0), Counter())
        for _ in range(2):
            old.observer(Request("x", b""), Answer(200, b"{}"))
        trial.end()
        await asyncio.sleep(0)
        before = caplog.text
        new.told.set()
        await asyncio.sleep(0.1)
        return before

    with caplog.at_level(logging.INFO, "beam_score"):
        assert "copies of requests" not in asyncio.run(copies())
    assert caplog.text.count("copies of requests to version 2: 2 same") == 1


def observed(new: tuple[int, int, float], old: tuple[int, int, float], **bounds) -> str | None:
    """Return the problem after requests: how many, how many failed, seconds of each."""
    versions = _Served(), _Served()
    versions[1].version = _version(1)
    observation = Observation(*versions, Rollout(**bounds))
    for served, (count, failed, seconds) in zip(versions, (new, old), strict=True):
        for at in range(count):
            served.account.begin()
            answer = Answer(500 if at < failed else 200, b"", 1, 1)
            served.account.end(Request("x", b""), answer, "rest", seconds)
    return observation.problem()


def test_bounds_are_relative_to_the_version_before():
    assert observed((10, 10, 0.1), (100, 0, 0.1)) is None  # too few
    assert "20 of 100 requests failed" in observed((100, 20, 0.1), (100, 0, 0.1))
    assert observed((100, 20, 0.1), (100, 20, 0.1)) is None
    assert observed((100, 1, 0.1), (100, 0, 0.1)) is None
    assert observed((100, 0, 0.3), (100, 0, 0.1)) is None
    assert "3.0 times the time of version 1" in observed((100, 0, 0.3), (100, 0, 0.1), max_latency=2)
    assert observed((100, 0, 0.15), (100, 0, 0.1), max_latency=2) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"predictions": [1.0]}, {"predictions": [1.0000001]}, True),
        ({"predictions": [1.0]}, {"predictions": [1.1]}, False),
        ({"predictions": [None]}, {"predictions": [1.1]}, False),
        ({"predictions": [True]}, {"predictions": [1]}, False),
        ({"predictions": [1.0, 2.0]}, {"predictions": [1.0]}, False),
        ({"error": "x", "request_id": "a"}, {"error": "x", "request_id": "b"}, True),
        ({"a": "x"}, {"b": "x"}, False),
    ],
)
def test_answers_are_compared_by_value(one, other, same):
    first, second = (Answer(200, json.dumps(body).encode()) for body in (one, other))
    assert answers_agree("json", first, second, 1e-6) is same
