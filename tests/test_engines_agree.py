"""What comes out does not depend on the engine: one job, over every format, with bad rows and a poison row."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import dirty
import faults
import jobs
import pytest
from apache_beam import coders
from dirty import Published

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.run.launch import run
from beam_score.runners.portable.prism import BINARY
from beam_score.transforms.rows.block import Block
from beam_score.transforms.steps.coder import BlockCoder

LOCAL = {"runner": "local"}

MOST_SHUFFLED = 6_000
"""Bytes, for a few splits: their descriptors twice, and their numbers as they are done."""


def flink(jars: Path, **settings) -> dict:
    """Flink's embedded cluster, as `engine` of a job."""
    return {"runner": "flink", "flink": {"job_server_jar": str(jars / "job-server.jar")} | settings}


def standalone(jars: Path, cluster) -> dict:
    """The cluster that runs beside the tests, as `engine` of a job."""
    jar = str(jars / "job-server-for-cluster.jar")
    return flink(jars, job_server_jar=jar, master=cluster.master, worker_pool=cluster.pool)


class CountingCoder(BlockCoder):
    """Notes each block that is made bytes; workers are threads of this process."""

    encoded: ClassVar[list[Block]] = []

    def encode(self, block):
        self.encoded.append(block)
        return super().encode(block)


@contextlib.contextmanager
def counted_encodings():
    """While the body runs, blocks that are serialized in this process are put into the list."""
    CountingCoder.encoded.clear()
    coders.registry.register_coder(Block, CountingCoder)
    try:
        yield CountingCoder.encoded
    finally:
        coders.registry.register_coder(Block, BlockCoder)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dirty")
    for format_ in dirty.FORMATS:
        dirty.write_rows(folder, format_)
    return folder


@pytest.fixture(scope="session")
def expected(data, model, tmp_path_factory):
    """By format, what one thread of this process makes of it."""
    output = tmp_path_factory.mktemp("expected")
    one = LOCAL | {"workers": 1}
    return {f: Published.of(scored(data, f, model, output / f, one)) for f in dirty.FORMATS}


def scored(data, format_, model, output, engine) -> Path:
    outcome = run(parse_job(dirty.job(data, format_, model("echo_and_multiply"), output, engine=engine)))
    assert outcome.code == 0
    return output


def test_every_kind_of_bad_row_is_among_them(expected):
    for format_, of in expected.items():
        reasons = {letter["reason"] for letter in of.dead_letters}
        assert {"out_of_range", "model_error"} <= reasons and len(reasons) > 2, (format_, reasons)
        assert len(of.predictions) + len(of.dead_letters) == of.counts["counts"]["read"]


def test_threads_change_nothing(data, expected, model, tmp_path):
    for format_ in dirty.FORMATS:
        dirty.assert_same(scored(data, format_, model, tmp_path / format_, LOCAL), expected[format_])


def test_flink_in_a_jvm_changes_nothing_and_no_row_is_serialized(data, expected, model, flink_jars, tmp_path):
    with counted_encodings() as encoded:
        for format_ in dirty.FORMATS:
            dirty.assert_same(scored(data, format_, model, tmp_path / format_, flink(flink_jars)), expected[format_])
    assert encoded == []


def test_a_flink_cluster_changes_nothing_and_shuffles_descriptors_only(
    data, expected, model, flink_jars, flink_cluster, tmp_path
):
    for format_ in dirty.FORMATS:
        output = tmp_path / format_
        engine = standalone(flink_jars, flink_cluster) | {"split_bytes": "64KiB"}
        found = scored(data, format_, model, output, engine)
        dirty.assert_same(found, expected[format_])
        job = flink_cluster.ask(f"/jobs/{flink_cluster.jobs()[-1]['jid']}")
        shuffled = sum(vertex["metrics"]["read-bytes"] for vertex in job["vertices"])
        read = sum(path.stat().st_size for path in data.glob(f"*.{format_}"))
        assert shuffled < MOST_SHUFFLED < read / 8, f"{format_}: {shuffled} bytes shuffled, {read} read"


@pytest.fixture
def prism():
    if not (os.environ.get(BINARY) or shutil.which("prism")):
        pytest.skip(f"there is no Prism on this machine: put one on the path, or name it in {BINARY}")
    return {"runner": "prism"}


def test_prism_changes_nothing(data, expected, model, prism, tmp_path):
    with counted_encodings() as encoded:
        for format_ in dirty.FORMATS:
            found = scored(data, format_, model, tmp_path / format_, prism)
            dirty.assert_same(found, expected[format_])
    assert encoded == []


def test_prism_has_as_many_threads_at_work_at_once_as_it_was_told(model, prism, tmp_path):
    engine = prism | dirty.PLENTY | {"workers": 2}
    settings = dirty.job(
        dirty.write_plenty(tmp_path), "csv", model("echo_and_multiply"), tmp_path / "out",
        preprocess="test_engines_agree:note_thread", engine=engine,
    )  # fmt: skip
    _SEEN.clear()
    assert run(parse_job(settings)).code == 0
    del _SEEN[threading.main_thread().ident]  # that of the trial
    both, either = max(s[0] for s in _SEEN.values()), min(s[-1] for s in _SEEN.values())
    begin, end = min(s[0] for s in _SEEN.values()), max(s[-1] for s in _SEEN.values())
    assert len(_SEEN) == 2 and either - both > 0.5 * (end - begin), _SEEN


_SEEN: defaultdict[int, list[float]] = defaultdict(list)


def note_thread(rows):
    """Preprocesses nothing, and notes by thread when."""
    _SEEN[threading.get_ident()].append(time.monotonic())
    return rows


@pytest.mark.parametrize("begins", ["local", "flink"])
def test_a_run_is_killed_on_one_engine_and_ended_on_another(begins, model, flink_jars, tmp_path):
    engines = {"local": LOCAL, "flink": flink(flink_jars)}
    ends = next(name for name in engines if name != begins)
    folder, output = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    dirty.write_plenty(folder)
    settings = dirty.plenty_job(folder, model("echo_and_multiply"), output, preprocess="faults:trip")
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(settings | {"engine": dirty.PLENTY | engines[begins] | {"workers": 2}}))
    faults.order(tmp_path, "kill group", output)
    killed = jobs.cli("run", str(path), TMPDIR=str(tmp_path), **{faults.FOLDER: str(tmp_path)})
    assert killed.returncode == 1, killed.stderr
    assert signal.SIGKILL.name in killed.stderr
    assert jobs.staged(output)
    run(parse_job(settings | {"engine": dirty.PLENTY | engines[ends] | {"workers": 2}}))
    whole = settings | {
        "engine": dirty.PLENTY | LOCAL,
        "output": settings["output"] | {"path": str(tmp_path / "whole")},
    }
    run(parse_job(whole))
    dirty.assert_same(output, Published.of(tmp_path / "whole"))
