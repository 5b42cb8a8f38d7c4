"""A whole run on Dataflow with everything on Cloud Storage, and its replay: an emulator of the store, and a service of
our own."""

from __future__ import annotations

import json
from pathlib import Path

import jobs
from dataflow_service import section, serving

from beam_score.transforms.stores.objects import ObjectPath
from beam_score.transforms.stores.registry import store_of


def upload(gcs, folder: Path, to: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            key = ObjectPath.parse(gcs.url(f"{to}/{path.relative_to(folder)}"))
            store_of("gs").write(key, [path.read_bytes()])


def test_a_job_and_its_replay_read_and_write_cloud_storage_alone(tmp_path, model, gcs, forks):
    bad = jobs.write_people(tmp_path / "data", files=2, rows=500, bad_every=100)
    upload(gcs, tmp_path / "data", "in")
    upload(gcs, Path(model("dense")), "model")
    job = jobs.write_job(
        tmp_path,
        gcs.url("model"),
        input={"files": gcs.url("in/*.csv")},
        output={"path": gcs.url("out")},
        engine=section(gcs.url("temp")),
        rejects={"budget": "50%"},
    )
    checked = forks.run("check", job, "--set", "engine.runner=local", **gcs.environment)
    assert checked.code == 0, checked.said
    assert f"model   {gcs.url('model')}" in checked.said and "ready in" in checked.said
    with serving() as (service, endpoint):
        beam = ("--", f"--dataflow_endpoint={endpoint}", "--no_auth")
        run = forks.run("run", job, *beam, **gcs.environment)
        assert run.code == 0, run.said
        (submitted,) = service.jobs.values()
        assert dict(submitted.environment.sdk_pipeline_options["options"])["pipelineUrl"].startswith(gcs.url("temp"))
        again = forks.run("run", job, *beam, **gcs.environment)
        assert again.code == 0, again.said
        assert "Finished already" in again.said
        assert len(service.jobs) == 1
    found = store_of("gs").list(ObjectPath.parse(gcs.url("out")))
    out = {str(object_.path).removeprefix(gcs.url("out") + "/") for object_ in found}
    manifest = json.loads(store_of("gs").read(ObjectPath.parse(gcs.url("out/manifest.json"))))
    assert manifest["counts"]["predicted"] == 1000 - bad
    assert manifest["counts"]["rejected"] == bad
    listed = {file["path"] for file in manifest["files"]}
    assert out == {*listed, "manifest.json"}
    replay = forks.run("replay", gcs.url("out"), "--set", "engine.runner=local", **gcs.environment)
    assert replay.code == 0, replay.said
    replayed = json.loads(store_of("gs").read(ObjectPath.parse(gcs.url("out-replay/manifest.json"))))
    assert replayed["parent"] == {"run": manifest["run"], "output": gcs.url("out"), "from": "auto"}
    assert replayed["counts"]["read"] == replayed["counts"]["rejected"] == bad
