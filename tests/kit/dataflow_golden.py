"""The shape of a Dataflow job as a readable file, to compare:

    make golden          # writes it again; then read the diff

Values that differ from run to run, or with the version of Beam, are removed or replaced by a name.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jobs
import models
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2

from beam_score.pipeline.prepare.chain import build
from beam_score.runners.dataflow.engine import Dataflow
from beam_score.runners.ended import GoesOnElsewhere
from beam_score.runners.settings.engine import EngineSettings
from beam_score.transforms.ledger.folder import read_plan

GOLDEN = Path(__file__).parents[1] / "golden" / "dataflow_template.json"

NOWHERE = ("--dataflow_endpoint=http://localhost:1", "--no_auth")
"""Beam's options for a rehearsal that makes no requests."""

SETTINGS = {
    "project": "my-project",
    "region": "europe-west4",
    "machine_type": "n2-standard-8",
    "num_workers": 2,
    "max_workers": 12,
    "disk_gb": 50,
    "service_account": "scorer@my-project.iam.gserviceaccount.com",
    "subnetwork": "regions/europe-west4/subnetworks/private",
    "public_ips": False,
    "labels": {"team": "risk", "cost-centre": 4711},
    "image": "europe-west4-docker.pkg.dev/my-project/images/beam-score:0.1.0",
}

_VARIES = ("beam_plugins", "pipelineProtoHash", "dataflow_endpoint")
_LINE = re.compile(r"(?<=\.py):[0-9]+")
_GENERATED = re.compile(r"(?<![a-z0-9])[0-9]{8}[tT][0-9]{6}-[0-9a-f]{6}")


def write_template(planned: jobs.Planned, folder: Path, *beam_args: str, **settings: Any) -> tuple[Path, Path]:
    """Write the files of a template: the job and its graph."""
    (folder / "staging").mkdir(parents=True)
    dataflow = {
        **SETTINGS,
        "temp_location": str(folder / "staging"),
        "template_location": str(folder / "template.json"),
        **settings,
    }
    engine = Dataflow(EngineSettings(runner="dataflow", dataflow=dataflow), [*NOWHERE, *beam_args])
    problems = engine.problems()
    assert not problems, problems
    shards = read_plan(planned.folder)["shards"]
    try:
        engine.run(
            lambda p: build(p, planned.steps, planned.write, shards, planned.job.rejects.as_budget()),
            planned.folder.run,
        )
    except GoesOnElsewhere:
        return folder / "template.json", folder / "staging" / "pipeline.pb"
    raise AssertionError("a template is no job")


def shape(template: Path, graph: Path) -> dict[str, Any]:
    """Reduce a job and its graph to the parts that must not change unnoticed."""
    job = json.loads(template.read_bytes())
    pipeline = beam_runner_api_pb2.Pipeline.FromString(graph.read_bytes())
    options = job["environment"]["sdkPipelineOptions"].pop("options")
    del job["environment"]["sdkPipelineOptions"], job["clientRequestId"], job["environment"]["userAgent"]
    for image in job["environment"]["workerPools"][0]["sdkHarnessContainerImages"]:
        del image["capabilities"], image["environmentId"]
    defaults = PipelineOptions([]).get_all_options()
    transforms = pipeline.components.transforms.values()
    found = {
        "job": job,
        "options": {n: v for n, v in options.items() if n not in _VARIES and v != defaults.get(n)},
        "steps": sorted({_LINE.sub("", t.unique_name) for t in transforms if not t.unique_name.startswith("ref_")}),
    }
    return _named(found, str(template.parent))


def _named(value: Any, folder: str) -> Any:
    if isinstance(value, Mapping):
        return {k: _named(v, folder) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [_named(v, folder) for v in value]
    return _GENERATED.sub("RUN", value.replace(folder, "FOLDER")) if isinstance(value, str) else value


def as_text(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder_:
        here = Path(folder_)
        jobs.write_people(here / "data")
        planned_ = jobs.plan(jobs.job(here, str(models.dense(here / "model"))))
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(as_text(shape(*write_template(planned_, here / "template"))))
    print(f"wrote {GOLDEN}")
