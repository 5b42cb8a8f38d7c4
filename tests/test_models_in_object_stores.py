"""A model in a store of objects is the model that a local folder would be: copied once a machine, known by its hash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jobs
import pytest
from faulty_proxy import Fault

from beam_score.pipeline.draft.draft import draft_job
from beam_score.pipeline.prepare.cost import process_bytes
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.run.launch import run
from beam_score.pipeline.show.inspect import inspect_model
from beam_score.transforms.model.copies import hashed_model, local_model
from beam_score.transforms.model.loading import ModelChanged, load_once
from beam_score.transforms.model.signature import ModelError
from beam_score.transforms.model.versions import find_version, hash_model
from beam_score.transforms.stores.fetch import StoreFails
from beam_score.transforms.stores.objects import ObjectPath
from beam_score.transforms.stores.registry import store_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Where copies are kept."""
    monkeypatch.setenv("BEAM_SCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def upload(store, folder: str | Path, key: str) -> str:
    """A folder's files as objects; returns its URL."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            where = ObjectPath.parse(store.url(f"{key}/{path.relative_to(folder)}"))
            store_of(where).write(where, [path.read_bytes()])
    return store.url(key)


def copies(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "models").iterdir())


def reads(store) -> int:
    """Requests for the content of objects."""
    return sum(r.method == "GET" and ("alt=media" in r.target or "/models/" in r.target) for r in store.proxy.requests)


def test_the_same_model_has_the_same_hash_wherever_it_lies(store, model, cache):
    url = upload(store, model("multiply"), "models/1")
    local, sha256 = hashed_model(url)
    assert sha256 == hash_model(model("multiply")) == hash_model(local)
    assert copies(cache) == [sha256]
    assert hashed_model(upload(store, model("multiply"), "elsewhere")) == (local, sha256)
    assert hashed_model(model("multiply")) == (model("multiply"), sha256)


def test_it_is_copied_once(store, model, cache):
    url = upload(store, model("multiply"), "models/1")
    sha256 = hashed_model(url)[1]
    with store.proxy.failing(Fault("status", "GET", "alt=media|/models/1/", times=10**9)):  # it may be listed
        assert hashed_model(url)[1] == sha256
    with store.proxy.failing(Fault("status", times=10**9)):  # who knows the hash asks nobody
        assert local_model(url, sha256) == str(cache / "models" / sha256)


def test_many_processes_at_once_make_one_copy(store, model, cache):
    url = upload(store, model("multiply"), "models/1")
    files = sum(p.is_file() for p in Path(model("multiply")).rglob("*"))
    store.proxy.reset()
    code = (
        "import sys; from beam_score.transforms.model.copies import hashed_model; print(hashed_model(sys.argv[1])[1])"
    )
    command = [sys.executable, "-c", code, url]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=jobs.environment()) for _ in range(3)]
    assert {r.communicate()[0].strip() for r in running} == {hash_model(model("multiply"))}
    assert copies(cache) == [hash_model(model("multiply"))]
    assert reads(store) <= files


def test_a_half_copy_is_never_used_and_is_taken_away(store, model, cache, monkeypatch):
    monkeypatch.setenv("BEAM_SCORE_STORE_RETRY_S", "0.1")
    url = upload(store, model("multiply"), "models/1")
    fault = Fault("status", "GET", "variables.data", times=10**9)
    with store.proxy.failing(fault), pytest.raises(StoreFails, match=r"variables\.data"):
        hashed_model(url)
    assert copies(cache) == []
    hashed_model(url)
    (made,) = copies(cache)
    # What a process that was killed leaves.
    key = next((cache / "listings").iterdir()).name
    shutil.rmtree(cache / "models" / made)
    (cache / "models" / f".{key[:16]}.left").mkdir()
    assert hashed_model(url)[1] == made
    assert copies(cache) == [made]


def test_a_damaged_copy_is_made_anew(store, model, cache):
    url = upload(store, model("multiply"), "models/1")
    local, sha256 = hashed_model(url)
    Path(local, "saved_model.pb").write_bytes(b"damaged")
    assert hashed_model(url) == (local, sha256)
    Path(local, "saved_model.pb").write_bytes(b"damaged")
    assert load_once(url, "serving_default", 1, sha256).signature.name == "serving_default"
    assert hash_model(local) == sha256


def test_faults_on_the_way_change_nothing(store, model):
    url = upload(store, model("multiply"), "models/1")
    faults = [Fault("truncate", "GET", "saved_model.pb"), Fault("reset", "GET", "variables.data")]
    with store.proxy.failing(*faults):
        assert hashed_model(url)[1] == hash_model(model("multiply"))
    assert all(f.done for f in faults)


def test_versions_are_found_by_listing(store, model):
    for number in ("1", "3", "20", "next"):
        upload(store, model("multiply"), f"models/{number}")
    upload(store, model("multiply") + "/variables", "models/30")
    found = find_version(store.url("models"))
    assert (found.path, found.version, found.versions) == (store.url("models/20"), "20", ("1", "3", "20"))
    assert find_version(store.url("models"), 3).path == store.url("models/3")
    assert find_version(store.url("models/3")).version == "3"
    assert find_version(store.url("models/next")).version is None


@pytest.mark.parametrize(
    ("path", "version", "sentence"),
    [
        ("modles", "latest", "modles does not exist: there is nothing under it; did you mean 'models'?"),
        ("models", 7, "models has no version 7; it has 1"),
        ("models/1", 7, "is a SavedModel itself, but version 7 was requested"),
        ("models/1/saved_model.pb", "latest", "is an object of a SavedModel: give its folder, "),
        ("other/people.h5", "latest", "is a Keras HDF5 file"),
        ("other", "latest", "it contains people.h5, a Keras HDF5 file"),
        ("models/1/variables", "latest", "it contains a checkpoint"),
    ],
)
def test_what_is_no_model_is_told(store, model, path, version, sentence):
    upload(store, model("multiply"), "models/1")
    store_of(store.scheme).write(ObjectPath.parse(store.url("other/people.h5")), [b"x"])
    with pytest.raises(ModelError) as error:
        find_version(store.url(path), version)
    assert sentence in str(error.value) and store.url() in str(error.value)


def test_inspect_and_init_take_it(tmp_path, store, model):
    url = upload(store, model("multiply"), "models/1")
    told, local = inspect_model(store.url("models")), inspect_model(model("multiply"))
    assert told | {"path": "", "version": None, "versions": []} == local | {"path": ""}
    assert told["path"] == url and told["version"] == "1"
    jobs.write_people(tmp_path / "data", files=1, rows=10)
    assert f"path: {store.url('models')}" in draft_job(store.url("models"), str(tmp_path / "data" / "*.csv"))
    broken = ObjectPath.parse(store.url("broken/saved_model.pb"))
    store_of(broken).write(broken, [b"no model"])
    with pytest.raises(ModelError, match=str(broken.parent)) as error:
        inspect_model(str(broken.parent))
    assert "cache" not in str(error.value)


def test_a_job_runs_with_it_and_a_local_copy_is_the_same_job(tmp_path, store, model, cache):
    upload(store, model("multiply"), "models/1")
    jobs.write_people(tmp_path / "data", files=2, rows=100)
    store.proxy.reset()
    assert run(jobs.job(tmp_path, store.url("models"))).code == 0
    assert reads(store) == sum(p.is_file() for p in Path(model("multiply")).rglob("*"))
    manifest = jobs.manifest(tmp_path / "out")
    assert manifest["model"]["path"] == store.url("models/1") and manifest["model"]["version"] == "1"
    assert manifest["model"]["sha256"] == hash_model(model("multiply"))
    first = manifest["run"]
    assert run(jobs.job(tmp_path, model("multiply"))).manifest["run"] == first


def test_a_model_that_is_not_the_planned_one_is_not_loaded(store, model, cache):
    url = upload(store, model("multiply"), "models/1")
    planned = hash_model(model("multiply"))
    upload(store, model("doubled"), "models/1")
    with pytest.raises(ModelChanged) as error:
        load_once(url, "serving_default", 1, planned)
    assert url in str(error.value) and planned in str(error.value) and "put the planned model back" in str(error.value)
    where = ObjectPath.parse(f"{url}/saved_model.pb")
    store_of(where).remove(where)
    with pytest.raises(ModelChanged, match="no such model"):
        load_once(url, "serving_default", 1, planned)


def test_a_store_that_is_down_at_launch_fails_the_job_and_a_missing_model_is_a_mistake(
    tmp_path, store, model, monkeypatch
):
    monkeypatch.setenv("BEAM_SCORE_STORE_RETRY_S", "0.1")
    upload(store, model("multiply"), "models/1")
    jobs.write_people(tmp_path / "data", files=1, rows=10)
    with store.proxy.failing(Fault("status", times=10**9)), pytest.raises(StoreFails) as error:
        run(jobs.job(tmp_path, store.url("models")))
    assert explain(error.value)[0] == ExitCode.FAILED and len(explain(error.value)[1]) == 1
    with pytest.raises(Exception, match="does not exist") as error:
        run(jobs.job(tmp_path, store.url("nothing")))
    assert explain(error.value)[0] == ExitCode.WRONG


def test_a_cache_that_cannot_be_written_is_told(tmp_path, store, model, monkeypatch):
    url = upload(store, model("multiply"), "models/1")
    (tmp_path / "file").touch()
    monkeypatch.setenv("BEAM_SCORE_CACHE", str(tmp_path / "file" / "in"))
    with pytest.raises(OSError, match="set BEAM_SCORE_CACHE"):
        local_model(url)
    monkeypatch.delenv("BEAM_SCORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert local_model(url).startswith(str(tmp_path / f"beam-score-{os.getuid()}"))


def test_the_memory_that_a_model_takes_is_reckoned_wherever_it_lies(store, model, tmp_path):
    jobs.write_people(tmp_path / "data", files=1, rows=10)
    takes = []
    for path in (model("dense"), upload(store, model("dense"), "models/1")):
        job = jobs.job(tmp_path, path)
        takes.append(process_bytes(job, prepare(job)))
    least = jobs.job(tmp_path, path).engine
    assert takes[0] == takes[1] > least.layout.memory_bytes(0, least.block_bytes)
