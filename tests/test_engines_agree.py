"""What comes out does not depend on the engine: one job, over every format, with bad rows and a poison row."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import ClassVar

import dirty
import faults
import jobs
import pytest
from apache_beam import coders
from outcomes import Result

from pipeline.job import parse_job
from pipeline.launch import run
from runners.prism import BINARY
from transforms.block import Block, BlockCoder

LOCAL = {"runner": "local"}


def flink(jars: Path, **settings) -> dict:
    """Flink's embedded cluster, as `engine` of a job."""
    return {"runner": "flink", "flink": {"job_server_jar": str(jars / "job-server.jar"), **settings}}


def standalone(jars: Path, cluster) -> dict:
    return flink(jars, master=cluster.master, worker_pool=cluster.pool)


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
    return {f: result(data, f, model, output / f, LOCAL | {"workers": 1}) for f in dirty.FORMATS}


def result(data, format_, model, output, engine) -> Result:
    outcome = run(parse_job(dirty.job(data, format_, model("echo_and_multiply"), output, engine=engine)))
    assert outcome.code == 0
    return Result.of(output)


def test_every_kind_of_bad_row_is_among_them(expected):
    for format_, of in expected.items():
        reasons = {letter["reason"] for letter in of.dead_letters}
        assert {"out_of_range", "model_error"} <= reasons and len(reasons) > 2, (format_, reasons)
        assert len(of.predictions) + len(of.dead_letters) == of.counts["counts"]["read"]


def test_threads_change_nothing(data, expected, model, tmp_path):
    for format_ in dirty.FORMATS:
        dirty.assert_same(result(data, format_, model, tmp_path / format_, LOCAL), expected[format_])


def test_flink_in_a_jvm_changes_nothing_and_no_row_is_serialized(data, expected, model, flink_jars, tmp_path):
    with counted_encodings() as encoded:
        for format_ in dirty.FORMATS:
            dirty.assert_same(result(data, format_, model, tmp_path / format_, flink(flink_jars)), expected[format_])
    assert encoded == []


def test_a_flink_cluster_changes_nothing_and_shuffles_descriptors_only(
    data, expected, model, flink_jars, flink_cluster, tmp_path
):
    for format_ in dirty.FORMATS:
        output = tmp_path / format_
        found = result(data, format_, model, output, standalone(flink_jars, flink_cluster))
        dirty.assert_same(found, expected[format_])
        job = flink_cluster.ask(f"/jobs/{flink_cluster.jobs()[-1]['jid']}")
        shuffled = sum(vertex["metrics"]["read-bytes"] for vertex in job["vertices"])
        splits = jobs.manifest(output)["counts"]["splits"]
        assert shuffled < 2000 + 1000 * splits, f"{format_}: {shuffled} bytes shuffled for {splits} splits"


def test_prism_changes_nothing(data, expected, model, tmp_path):
    if not (os.environ.get(BINARY) or shutil.which("prism")):
        pytest.skip(f"there is no Prism on this machine: put one on the path, or name it in {BINARY}")
    with counted_encodings() as encoded:
        for format_ in dirty.FORMATS:
            found = result(data, format_, model, tmp_path / format_, {"runner": "prism"})
            dirty.assert_same(found, expected[format_])
    assert encoded == []


@pytest.mark.parametrize("begins", ["local", "flink"])
def test_a_run_is_killed_on_one_engine_and_ended_on_another(begins, data, expected, model, flink_jars, tmp_path):
    engines = {"local": LOCAL, "flink": flink(flink_jars)}
    order = tmp_path / "faults"
    order.mkdir()
    (order / "kill group").touch()
    ends = next(name for name in engines if name != begins)
    settings = dirty.job(data, "csv", model("echo_and_multiply"), tmp_path / "out", preprocess="faults:trip")
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(settings | {"engine": settings["engine"] | engines[begins]}))
    killed = jobs.cli("run", str(path), TMPDIR=str(tmp_path), **{faults.FOLDER: str(order)})
    assert killed.returncode == 1 and signal.SIGKILL.name in killed.stderr
    done = len(jobs.staged(tmp_path / "out"))
    assert done > 0
    run(parse_job(settings | {"engine": settings["engine"] | engines[ends]}))
    dirty.assert_same(Result.of(tmp_path / "out"), expected["csv"])
