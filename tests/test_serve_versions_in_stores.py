"""Versions of a model in an object store are followed as in a local folder."""

from __future__ import annotations

import json
from pathlib import Path

import serving
from faulty_proxy import Fault
from versioned import Versions, answers, error, states, until

from beam_score.transforms.stores.objects import ObjectPath
from beam_score.transforms.stores.registry import store_of


def upload(store, folder: Path, key: str, but: str = "", only: str = "") -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != but and path.name.startswith(only):
            where = ObjectPath.parse(store.url(f"{key}/{path.relative_to(folder)}"))
            store_of(where).write(where, [path.read_bytes()])


def test_versions_in_a_store_are_followed(store, tmp_path, monkeypatch):
    monkeypatch.setenv("BEAM_SCORE_CACHE", str(tmp_path / "cache"))
    versions = Versions(tmp_path / "of")
    upload(store, versions.made(1), "models/1")
    job = Path(versions.job(poll=0.2))
    settings = json.loads(job.read_text())
    settings["model"] = {"path": store.url("models")}
    job.write_text(json.dumps(settings))
    with serving.served(versions.folder, str(job)) as server:
        assert answers(server, 1)
        upload(store, versions.made(2), "models/2", but="saved_model.pb")
        until(lambda: "saved_model.pb is missing" in error(server, 2) if 2 in states(server) else False)
        assert answers(server, 1)
        upload(store, versions.made(2), "models/2", only="saved_model.pb")
        until(lambda: answers(server, 2))
        with store.proxy.failing(Fault("status", times=10)):
            assert answers(server, 2)
        upload(store, versions.made(3), "models/3")
        until(lambda: answers(server, 3))
        assert server.end() == 0
