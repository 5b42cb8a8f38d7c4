"""Dataflow: what is sent to the service and what is not, and how a launcher follows a job; the service is our own."""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import dataflow_golden
import jobs
import pytest
import typer
from dataflow_service import Fate, section, serving, staged
from forks import Forks, Running
from google.cloud.dataflow_v1beta3 import TemplateMetadata
from google.protobuf import json_format

from beam_score.pipeline import flex
from beam_score.pipeline.cli import app
from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.chain import build
from beam_score.runners.choose import engine_of
from beam_score.runners.dataflow import cost as dataflow_cost
from beam_score.runners.ended import GoesOnElsewhere
from beam_score.runners.engine import Measured
from beam_score.runners.settings import dataflow_names

TRACEBACK = """Traceback (most recent call last):
  File "apache_beam/runners/worker/sdk_worker.py", line 311, in _execute
    response = task()
  File "transforms/scoring/halving.py", line 90, in __call__
    raise EveryRowFails(told)
beam_score.transforms.scoring.halving.EveryRowFails: the model fails on every row: bad weights [while running 'Infer/RunInference']
"""  # noqa: E501


@pytest.fixture
def service():
    with serving() as (service, endpoint):
        service.beam = ["--", f"--dataflow_endpoint={endpoint}", "--no_auth"]
        yield service


def staging(tmp_path: Path) -> str:
    """A folder in place of one on Cloud Storage."""
    (tmp_path / "staging").mkdir(exist_ok=True)
    return str(tmp_path / "staging")


def job_file(tmp_path: Path, saved_model: str, **settings) -> str:
    jobs.write_people(tmp_path / "data", files=2, rows=500, bad_every=100)
    engine = section(staging(tmp_path), **settings)
    return jobs.write_job(tmp_path, saved_model, engine=engine, rejects={"budget": "50%"})


def engine(settings: dict, *beam_args: str):
    section = {"runner": "dataflow", "dataflow": settings}
    return engine_of(jobs.parse_job({"input": {"files": "x.csv"}, "model": {"path": "m"}, "output": {"path": "o"},
                                     "engine": section}).engine, beam_args)  # fmt: skip


# --- what is refused, before anything is asked of anyone ---


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"project": "123456"}, "is a project number"),
        ({"project": "My Project"}, "is not a project id"),
        ({"region": "europe-west4-b"}, "is a zone: Dataflow needs the region, europe-west4"),
        ({"region": "Europe"}, "is not a region"),
        ({"job_name": "Nightly_run"}, "is not a job name"),
        ({"machine_type": "n2-standart-4"}, "is not a known machine type"),
        ({"machine_type": "t2a-standard-4"}, "has an ARM processor"),
        ({"labels": {"Team": "risk"}}, "'Team' is not a label"),
        ({"labels": {"team": "Risk!"}}, "'Risk!' is not a label value"),
        ({"image": "beam-score"}, "is not an image"),
        ({"service_account": "scorer"}, "is not a service account"),
        ({"num_workers": 9, "max_workers": 3}, "num_workers is 9, more than max_workers, 3"),
        ({"max_workers": 0}, "at least 1"),
        ({"regoin": "europe-west4"}, "did you mean 'region'"),
    ],
)
def test_a_wrong_setting_is_told_with_what_is_expected(settings, said):
    with pytest.raises(JobError) as raised:
        engine(settings)
    assert said in str(raised.value)


def test_all_that_is_missing_is_told_at_once():
    found = "\n".join(engine({}).problems())
    for said in (
        "engine.dataflow.project is missing",
        "engine.dataflow.region is missing",
        "engine.dataflow.temp_location is missing",
        "neither engine.dataflow.image nor engine.dataflow.setup_file is set",
    ):
        assert said in found


def test_places_that_the_workers_do_not_see_are_told_by_name(tmp_path, model, forks):
    settings = dataflow_golden.SETTINGS | {"temp_location": "/tmp/here", "setup_file": str(tmp_path / "setup.py")}
    path = jobs.write_job(tmp_path, model("dense"), engine={"runner": "dataflow", "dataflow": settings})
    run = forks.run("run", path)
    assert run.code == 2
    for said in (
        "engine.dataflow.temp_location: '/tmp/here' is not on Cloud Storage",
        f"engine.dataflow.setup_file: {tmp_path}/setup.py: no such file",
        f"input.files: {tmp_path}/data/*.csv is not on Cloud Storage",
        f"model.path: {model('dense')} is not on Cloud Storage",
        f"output.path: {tmp_path}/out is not on Cloud Storage",
    ):
        assert said in run.said


def test_beams_own_options_win_and_that_is_said():
    settings = dataflow_golden.SETTINGS | {"temp_location": "gs://bucket/temp"}
    given = engine(settings, "--region=us-east1", "--experiments=use_multiple_sdk_containers", "--labels=team=fraud",
                   "--number_of_worker_harness_threads=3")  # fmt: skip
    assert given.problems() == []
    told = "\n".join(given.explain())
    assert "in my-project, us-east1" in told
    assert "8 processes, 3 threads each, one copy of the model per process" in told
    assert "--region=us-east1 after -- overrides engine.dataflow.region of the job file, which is europe-west4" in told
    assert "--experiments=use_multiple_sdk_containers after -- overrides no_use_multiple_sdk_containers" in told


def test_beams_own_options_are_judged_as_the_job_file_is():
    found = "\n".join(engine({}, "--project=123", "--machine_type=huge", "--num_workers=30").problems())
    assert "num_workers, the initial number of VMs, is 30, more than max_workers, 20" in found
    assert "Beam's options: --project: 123 is a project number" in found
    assert "Beam's options: --machine_type: 'huge' is not a known machine type" in found


@pytest.mark.parametrize("machine", ["n2-standard-4", "e2-highmem-8", "n1-highcpu-16", "n2-custom-6-12288"])
def test_the_threads_are_the_vcpus_of_a_vm_and_the_model_is_there_once(machine):
    settings = dataflow_golden.SETTINGS | {"machine_type": machine, "temp_location": "gs://bucket/temp"}
    vcpus = dataflow_names.machine(machine).vcpus
    assert f"each VM: one process, {vcpus} threads, one copy of the model" in engine(settings).explain()


def test_a_jobs_name_is_one_for_dataflow_whatever_the_prefix():
    for prefix in ("beam-score", "a" * 63, "x-" + "y" * 60):
        name = dataflow_names.job_name(prefix, "20261121T130123-9c3725")
        assert dataflow_names.job_name_problem(name) is None
        assert name.endswith("-20261121t130123-9c3725")


# --- what is sent ---


@pytest.fixture(scope="module")
def planned(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("planned")
    jobs.write_people(folder / "data")
    return jobs.plan(jobs.job(folder, model("dense")))


def test_the_jobs_shape_is_the_golden_one(planned, tmp_path):
    expected = dataflow_golden.GOLDEN.read_text().splitlines()
    found = dataflow_golden.as_text(dataflow_golden.shape(*dataflow_golden.write_template(planned, tmp_path / "t")))
    changed = list(difflib.unified_diff(expected, found.splitlines(), "golden", "now", lineterm="", n=2))
    if changed:
        pytest.fail("\n".join(["the job's shape has changed; to accept it: make golden", *changed]), pytrace=False)


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-secret-4f1c9e",
    "AWS_SESSION_TOKEN": "aws-token-77ab02",
    "GOOGLE_CLOUD_KEY": "gcp-key-b5d1e8",
    "BEAM_SCORE_STORE_KEY": "store-key-0d93aa",
}


def test_no_secret_is_in_a_job(planned, tmp_path, monkeypatch):
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    template, graph = dataflow_golden.write_template(planned, tmp_path / "t")
    sent = [p for p in (template, *graph.parent.iterdir()) if p.is_file()]
    assert graph in sent
    for path in sent:
        content = path.read_bytes()
        assert not [name for name, secret in SECRETS.items() if secret.encode() in content], path


def test_an_option_that_holds_a_secret_is_refused():
    secret = "s3-secret-c0ffee"
    found = "\n".join(engine(dataflow_golden.SETTINGS, f"--s3_secret_access_key={secret}").problems())
    assert "--s3_secret_access_key would be stored in the job" in found
    assert secret not in found


def test_a_job_of_100_000_splits_is_as_small_as_one_of_500(planned, tmp_path, service):
    budget, sizes = planned.job.rejects.as_budget(), {}
    job = jobs.parse_job({**planned.job.as_json(), "engine": section(staging(tmp_path), wait=False)})
    for splits in (500, 100_000):
        shards = [f"shard-{number:05}.jsonl" for number in range(splits // 500)]
        build_it = functools.partial(build, steps=planned.steps, write=planned.write, shards=shards, budget=budget)
        with pytest.raises(GoesOnElsewhere):
            engine_of(job.engine, service.beam[1:]).run(build_it, f"{planned.folder.run}-{splits}")
        sizes[splits] = staged(service)[-1].stat().st_size, service.request_bytes
    assert sizes[100_000][0] < sizes[500][0] + 20_000
    assert sizes[100_000][0] < 200_000
    assert sizes[100_000][1] < 50_000  # the request; Dataflow refuses some 10 MB


# --- how a launcher follows a job ---


def test_a_job_that_is_done_has_its_verdict_read_from_the_output(tmp_path, model, service, forks):
    run = forks.run("run", job_file(tmp_path, model("dense")), *service.beam)
    assert run.code == 0, run.said
    (job_id,) = service.jobs
    assert f"Created job with id: [{job_id}]" in run.said
    assert f"https://console.cloud.google.com/dataflow/jobs/europe-west4/{job_id}?project=my-project" in run.said
    for said in ("is pending", "Worker configuration: n2-standard-4", "is running", "is done"):
        assert said in run.said
    manifest = jobs.manifest(tmp_path / "out")
    assert manifest["counts"]["predicted"] == 990
    assert service.jobs[job_id].name == f"beam-score-{manifest['run'].lower()}"


def test_a_job_that_fails_is_told_with_what_the_worker_raised(tmp_path, model, service, forks):
    service.fate = Fate(errors=[TRACEBACK])
    run = forks.run("run", job_file(tmp_path, model("dense")), "--log-level", "error", *service.beam)
    assert run.code == 1
    (job_id,) = service.jobs
    assert f"Created job with id: [{job_id}]" in run.said  # however little is logged
    assert f"job {job_id} has ended as failed" in run.said
    assert "the model fails on every row: bad weights" in run.said
    assert "Traceback" not in run.said


def test_what_the_service_itself_says_of_a_failure_is_told_whole(tmp_path, model, service, forks):
    service.fate = Fate(errors=["Startup of the worker pool in europe-west4 failed: quota CPUS exceeded."])
    run = forks.run("run", job_file(tmp_path, model("dense")), *service.beam)
    assert run.code == 1
    assert "quota CPUS exceeded" in run.said
    assert "report it" not in run.said


def test_a_job_that_the_service_does_not_take_is_a_sentence(tmp_path, model, service, forks):
    service.fate = Fate(forbidden=["POST jobs"])
    run = forks.run("run", job_file(tmp_path, model("dense")), *service.beam)
    assert run.code == 1
    assert "Dataflow refuses job beam-score-" in run.said
    assert "The caller does not have permission" in run.said
    assert "Traceback" not in run.said


def test_a_launcher_that_loses_sight_of_its_job_says_that_the_job_goes_on(tmp_path, model, service, forks):
    service.fate = Fate(hangs=True, forbidden=["GET job"])
    run = forks.run("run", job_file(tmp_path, model("dense")), *service.beam)
    (job_id,) = service.jobs
    assert run.code == 1
    assert f"Dataflow no longer reports the state of job {job_id}" in run.said
    assert "The job itself continues, and publishes its result itself" in run.said
    assert not any(request.startswith("PUT") for request in service.requests)


def waiting(forks: Forks, *arguments: str) -> Running:
    """A launcher that waits for its job."""
    running, until = forks.start(*arguments), time.monotonic() + 120
    while not re.search("is (pending|running)", running.said()):
        assert running.lives(), running.said()
        assert time.monotonic() < until, running.said()
        time.sleep(0.02)
    return running


def test_ctrl_c_leaves_the_job_and_says_how_to_cancel_it_and_the_same_command_waits_for_it(
    tmp_path, model, service, forks
):
    service.fate = Fate(hangs=True)
    command = ("run", job_file(tmp_path, model("dense")), *service.beam)
    first = waiting(forks, *command)
    first.signal(signal.SIGINT)
    ended = first.wait()
    (job_id,) = service.jobs
    assert ended.code == 130
    assert f"job {job_id} continues without this command" in ended.said
    assert f"gcloud dataflow jobs cancel {job_id} --region=europe-west4 --project=my-project" in ended.said
    assert not any(request.startswith("PUT") for request in service.requests)

    second = waiting(forks, *command)
    assert list(service.jobs) == [job_id]
    service.end(job_id, "JOB_STATE_CANCELLED")
    ended = second.wait()
    assert ended.code == 1
    assert f"job {job_id} has ended as cancelled" in ended.said


def test_ctrl_c_before_there_is_a_job_says_that_there_may_be_one(tmp_path, model, service, forks):
    service.taking.clear()
    running = forks.start("run", job_file(tmp_path, model("dense")), *service.beam)
    until = time.monotonic() + 120
    while not service.requests:
        assert running.lives() and time.monotonic() < until, running.said()
        time.sleep(0.02)
    running.signal(signal.SIGINT)
    while "may have been submitted already" not in running.said():
        assert running.lives() and time.monotonic() < until, running.said()
        time.sleep(0.02)
    service.taking.set()
    assert running.wait().code == 130


def test_a_job_that_cannot_be_cancelled_is_said_to_go_on(tmp_path, model, service, forks):
    service.fate = Fate(hangs=True, forbidden=["PUT job"])
    running = waiting(forks, "run", job_file(tmp_path, model("dense"), on_interrupt="cancel"), *service.beam)
    running.signal(signal.SIGINT)
    ended = running.wait()
    (job_id,) = service.jobs
    assert ended.code == 130
    assert f"job {job_id} continues: Dataflow does not cancel it (403" in ended.said


def test_ctrl_c_cancels_the_job_where_that_is_asked_for(tmp_path, model, service, forks):
    service.fate = Fate(hangs=True)
    running = waiting(forks, "run", job_file(tmp_path, model("dense"), on_interrupt="cancel"), *service.beam)
    running.signal(signal.SIGINT)
    ended = running.wait()
    (job,) = service.jobs.values()
    assert ended.code == 130
    assert f"job {job.id} is being cancelled" in ended.said
    assert job.current_state.name == "JOB_STATE_CANCELLED"


def test_who_does_not_wait_gets_the_id_and_exit_code_0(tmp_path, model, service, forks):
    run = forks.run("run", job_file(tmp_path, model("dense"), wait=False), *service.beam)
    (job_id,) = service.jobs
    assert run.code == 0, run.said
    assert f"job {job_id} was submitted, and publishes its result itself" in run.said


def test_a_template_is_written_and_nothing_is_submitted(tmp_path, model, service, forks):
    template = tmp_path / "templates" / "nightly.json"
    template.parent.mkdir()
    written = ("--set", f"engine.dataflow.template_location={template}")
    run = forks.run("run", job_file(tmp_path, model("dense")), *written, *service.beam)
    assert run.code == 0, run.said
    assert "was written to" in run.said
    assert template.exists()
    assert service.requests == []


def test_a_job_whose_launcher_was_killed_is_known_to_live(tmp_path, model, service, forks):
    service.fate = Fate(hangs=True)
    command, out = ("run", job_file(tmp_path, model("dense")), *service.beam), str(tmp_path / "out")
    killed = waiting(forks, *command)
    killed.signal(signal.SIGKILL)
    killed.wait()
    (job_id,) = service.jobs
    at_work = f"job {job_id} on my-project, europe-west4, http://localhost"
    status = forks.run("status", out)
    assert status.code == 4 and at_work in " ".join(status.said.split())
    kept = forks.run("clean", out, "--unfinished")
    assert at_work in kept.said and "Nothing to clean" in kept.said
    assert f"gcloud dataflow jobs cancel {job_id}" in forks.run("run", *command[1:2], "--restart", *command[2:]).said
    service.fate = Fate(forbidden=["GET jobs"])
    unknown = forks.run("status", out, "--json")
    assert unknown.code == 1 and "permission" in json.loads(unknown.said)["jobs"][0]["why_not_known"]
    assert "--lost-jobs takes it for ended" in forks.run("clean", out, "--unfinished").said
    service.fate = Fate()
    service.end(job_id, "JOB_STATE_FAILED")
    ended = forks.run("status", out, "--json")
    assert ended.code == 1 and json.loads(ended.said)["jobs"] == []
    assert "not finished" in forks.run("clean", out, "--unfinished").said
    assert not (tmp_path / "out" / "_staging").exists()


# --- what it would cost ---


def test_a_machine_with_too_little_memory_is_refused_before_anything_is_sent(tmp_path, model, service, forks):
    path = job_file(tmp_path, model("dense"), machine_type="n1-highcpu-2")
    for command, beam in (("check", service.beam), ("run", service.beam)):
        refused = forks.run(command, path, "--set", "engine.block_bytes=32MiB", *beam)
        assert refused.code == 2
        assert "and a VM of n1-highcpu-2 has 1.8 GB: use a type with more memory" in refused.said
    assert service.requests == []
    many = engine(dataflow_golden.SETTINGS, "--experiments=use_multiple_sdk_containers")
    assert many.memory_problems(1 << 30) == []
    assert "8 worker processes need about 69.0 GB" in many.memory_problems(6 << 30)[0]


def test_memory_is_reckoned_for_the_machine_and_the_threads_that_beam_is_told():
    large = {**dataflow_golden.SETTINGS, "machine_type": "n2-standard-32"}
    assert engine(large, "--machine_type=n2-standard-4").memory_problems(14 << 30) == []
    assert engine(large).memory_problems(14 << 30) == []
    assert "use a type with more" in engine(large, "--machine_type=n2-highcpu-4").memory_problems(14 << 30)[0]


def test_check_tells_the_layout_and_an_estimate_with_all_that_it_assumes(tmp_path, model, service, forks):
    path = job_file(tmp_path, model("dense"), machine_type="n2-standard-8", vcpu_hour_usd=0.1, memory_gb_hour_usd=0.01)
    check = forks.run("check", path, *service.beam)
    assert check.code == 0, check.said
    for said in (
        "in my-project, europe-west4, on at most 2 VMs of n2-standard-8 (8 vCPUs, 32 GB)",
        "each VM: one process, 8 threads, one copy of the model",
        "code: europe-docker.pkg.dev/my-project/images/beam-score:1",
        "estimate, not guaranteed: about",
        "microseconds of processor time per row, measured on this machine with",
        "USD, by the prices of the job file: 0.1 USD per vCPU hour, 0.01 USD per GB hour of memory",
    ):
        assert said in check.said
    assert service.requests == []


def test_an_estimate_follows_the_rows_and_the_machine():
    machine = dataflow_names.machine("n2-standard-4")

    def of(rows: float, most_vms: int) -> dataflow_cost.Estimate:
        return dataflow_cost.estimate(Measured(rows, 1e-6, 1000), machine, 4, most_vms)

    few, many = of(1e6, 100), of(1e12, 100)
    assert few.vms == 1
    assert many.vms == 100
    # 1e12 rows x 1 microsecond x 1.5 are 1.5e6 seconds of a vCPU, on 400 of them
    assert many.seconds == pytest.approx(240 + 1.5e6 / 400)
    assert many.vcpu_hours == pytest.approx(400 * many.seconds / 3600)
    assert many.memory_gb_hours == pytest.approx(1600 * many.seconds / 3600)
    assert of(1e12, 200).seconds == pytest.approx(240 + 1.5e6 / 800)


def test_without_rows_there_is_no_estimate():
    given = engine(dataflow_golden.SETTINGS | {"temp_location": "gs://b/t"})
    assert given.estimate(lambda: Measured(0, 0, 0)) == ["estimate: not available, the input has no rows"]


@pytest.mark.parametrize("prices", [{}, {"vcpu_hour_usd": 0.06}, {"vcpu_hour_usd": 0.06, "memory_gb_hour_usd": 0.004}])
def test_money_is_estimated_with_the_prices_of_the_job_file_alone(prices):
    given = engine(dataflow_golden.SETTINGS | {"temp_location": "gs://b/t"} | prices)
    lines = given.estimate(lambda: Measured(1e9, 1e-6, 1000))
    found = dataflow_cost.estimate(Measured(1e9, 1e-6, 1000), dataflow_names.machine("n2-standard-8"), 8, 2)
    assert f"{found.vcpu_hours:,.1f} vCPU hours" in lines[0] and "USD" not in lines[0]
    if len(prices) == 2:
        usd = found.vcpu_hours * 0.06 + found.memory_gb_hours * 0.004
        assert lines[2].startswith(f"about {usd:,.2f} USD")
    else:
        assert lines[2].startswith("for its cost set engine.dataflow.vcpu_hour_usd and memory_gb_hour_usd")


# --- how the workers come by the code ---


def test_the_sdist_that_setup_file_makes_holds_our_three_packages_and_installs(tmp_path):
    from apache_beam.runners.portability.stager import Stager

    # As Beam does it, from a copy: a build leaves files beside the source.
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=jobs.ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((jobs.ROOT / name).read_bytes())
    made = Stager._build_setup_package(str(source / "setup.py"), str(tmp_path))
    with tarfile.open(made) as archive:
        files = [name.partition("/")[2] for name in archive.getnames()]
    modules = {name.partition("/")[0] for name in files if name.endswith(".py")}
    assert modules == {"beam_score", "pipeline", "transforms", "runners", "setup.py"}
    assert not [name for name in files if re.search(r"job\.yaml|\.csv|tests/|\.git", name)]

    subprocess.run(["python", "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", made]
    subprocess.run(install, check=True)
    told = "import beam_score.pipeline.run, beam_score.transforms.rows, beam_score.runners; print(beam_score.__file__)"
    imported = subprocess.run([python, "-c", told], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path / "venv") in imported.stdout


# --- the Flex Template ---

METADATA = jobs.ROOT / "examples" / "dataflow" / "metadata.json"


@pytest.fixture(scope="module")
def metadata():
    message = TemplateMetadata()
    json_format.Parse(METADATA.read_bytes(), message._pb, ignore_unknown_fields=False)
    return message


def test_the_templates_metadata_is_what_dataflow_reads(metadata):
    assert metadata.name
    assert metadata.description
    for parameter in metadata.parameters:
        assert parameter.label and parameter.help_text
        for regex in parameter.regexes:
            re.compile(regex)
    assert [p.name for p in metadata.parameters if not p.is_optional] == ["job"]


def test_the_templates_parameters_are_those_of_the_command_line(metadata):
    run = typer.main.get_command(app).commands["run"]
    options = {name.lstrip("-").replace("-", "_") for p in run.params for name in (*p.opts, *p.secondary_opts)}
    named = [p.name for p in metadata.parameters]
    assert sorted(named) == sorted({*flex.KEYS, *flex.FLAGS, "job", "set"})
    for name in named:
        assert name in flex.KEYS or name in options, name
    for key in flex.KEYS.values():
        section, name = key.split(".")
        assert name in Job.model_fields[section].annotation.model_fields, key


def matches(metadata, name: str, value: str) -> bool:
    (parameter,) = (p for p in metadata.parameters if p.name == name)
    return all(re.fullmatch(regex, value) for regex in parameter.regexes)


def test_the_templates_regexes_take_what_is_right_and_refuse_what_is_not(metadata):
    for name, right, wrong in (
        ("job", "gs://b/job.yaml", "job.yaml"),
        ("input_files", "[gs://b/a-*.csv, gs://b/b.csv]", "data/*.csv"),
        ("model_version", "latest", "newest"),
        ("output_path", "gs://b/out", "out"),
        ("set", "rejects.budget=5%;engine.split_bytes=128MB", "--replace"),
        ("replace", "true", "yes"),
    ):
        assert matches(metadata, name, right), name
        assert not matches(metadata, name, wrong), name


def test_a_templates_parameters_become_the_command_that_a_person_would_type():
    given = [
        "--job=gs://b/job.yaml", "--input_files=gs://b/in/*.csv", "--output_path=gs://b/out", "--replace=true",
        "--set=rejects.budget=5%; rejects.files=2", "--restart=false", "--runner=DataflowRunner",
        "--project=my-project", "--template_location=gs://b/staging/template_launches/1/job_object",
        '--labels={"goog-dataflow-provided-template-type": "flex"}',
    ]  # fmt: skip
    line = flex.command(given, "/tmp/job.yaml")
    ours, theirs = line[: line.index("--")], line[line.index("--") + 1 :]
    assert ours[:2] == ["run", "/tmp/job.yaml"]
    sets = [value for name, value in itertools.pairwise(ours) if name == "--set"]
    assert sets == [
        "input.files=gs://b/in/*.csv",
        "output.path=gs://b/out",
        "rejects.budget=5%",
        "rejects.files=2",
        "engine.runner=dataflow",
        "engine.dataflow.wait=true",
    ]
    assert "--replace" in ours and "--restart" not in ours
    assert theirs == given[6:]


def test_a_template_that_is_launched_writes_its_job_where_the_launcher_looks(tmp_path, model, service):
    job_object = tmp_path / "job_object"
    given = [
        f"--job={job_file(tmp_path, model('dense'))}", f"--output_path={tmp_path}/elsewhere", "--runner=DataflowRunner",
        "--project=other-project", "--job_name=nightly-1", f"--template_location={job_object}", *service.beam[1:],
        '--labels={"goog-dataflow-provided-template-type": "flex"}',
    ]  # fmt: skip
    command = [sys.executable, str(jobs.ROOT / "docker" / "launch.py"), *given]
    run = subprocess.run(command, cwd=tmp_path, env=jobs.environment(), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    written = json.loads(job_object.read_bytes())
    assert written["name"] == "nightly-1"
    assert written["labels"]["goog-dataflow-provided-template-type"] == "flex"
    assert written["environment"]["sdkPipelineOptions"]["options"]["project"] == "other-project"
    assert (tmp_path / "elsewhere" / "_staging").exists()
