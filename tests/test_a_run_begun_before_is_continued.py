"""This version continues a run that an earlier version has begun: `tests/cases/begun_by_0.1.0` is the folder of such a
run, which `rejects.stop_after` ended after five of its splits."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from beam_score.pipeline.job.job import load_job
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.run.launch import run as launch
from beam_score.transforms.durable.sealed import checksum, seal, unseal

CASE = Path(__file__).parent / "cases" / "begun_by_0.1.0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder as if it had been made here: times and inodes of files differ from machine to machine."""
    shutil.copytree(CASE, tmp_path / "job")
    monkeypatch.chdir(tmp_path / "job")
    (path,) = Path("out/_staging").glob("*/plan.json")
    plan = unseal(path.read_bytes())
    versions = {}
    for file in plan["inputs"]:
        stat = os.stat(file["path"])
        before = f"{file['size']}:{file['mtime_ns']}:{file['inode']}"
        file["mtime_ns"], file["inode"] = stat.st_mtime_ns, stat.st_ino
        versions[before] = f"{file['size']}:{file['mtime_ns']}:{file['inode']}"
    shards = []
    for shard in plan["shards"]:
        content = (path.parent / "plan" / shard).read_text()
        for before, now in versions.items():
            content = content.replace(before, now)
        shards.append(_named(path.parent / "plan", shard, content.encode()))
    files = prepare(load_job("job.yaml")).fingerprint()["input files"]
    plan["fingerprint"]["input files"] = files
    path.write_bytes(seal(plan | {"shards": shards}))
    current = Path("out/_staging/current.json")
    known = unseal(current.read_bytes())
    known["fingerprint"]["input files"] = files
    current.write_bytes(seal(known))
    return tmp_path / "job"


def _named(folder, name, content):
    """Write a shard under the name that holds its checksum. Returns the name."""
    (folder / name).unlink()
    name = f"{name.split('-')[0]}-{checksum(content)}.jsonl"
    (folder / name).write_bytes(content)
    return name


def test_a_run_that_an_earlier_version_has_begun_is_continued(folder):
    (run,) = (p.name for p in Path("out/_staging").iterdir() if p.is_dir())
    before = {p.name: p.stat().st_ino for p in Path(f"out/_staging/{run}/parts").iterdir()}
    assert len(list(Path(f"out/_staging/{run}/receipts").iterdir())) == 5
    job = Path("job.yaml")
    job.write_text(job.read_text().replace("stop_after: 5", "stop_after: 100"))
    assert launch(load_job(job)).code == 0
    manifest = json.loads(Path("out/manifest.json").read_bytes())
    assert manifest["run"] == run
    assert (manifest["counts"]["read"], manifest["counts"]["predicted"]) == (600, 591)
    kept = {p.stat().st_ino for kind in ("predictions", "rejected") for p in Path("out", kind).iterdir()}
    assert set(before.values()) <= kept
