"""Modules in the folder of a command never stand for those of beam-score or of a library, in the command and its
workers; and a worker process that does not come up is an end, with a reason."""

import importlib
import subprocess
import sys

import apache_beam as beam
import jobs
import pytest

from beam_score.runners.ended import WorkerDied
from beam_score.runners.local import Local
from beam_score.runners.settings.engine import EngineSettings
from beam_score.transforms.scoring.preprocess import PreprocessError, load_function

PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
OURS = ("beam_score", "pipeline", "runners", "transforms")

STEPS = """
import helper
def age_in_years(rows):
    return helper.same(rows)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose every module raises when it is imported, but for `steps` and `helper`."""
    for name in (*OURS, "yaml", "grpc", "statistics"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    for name in ("pipeline", "runners"):  # of no concern: all of ours is in beam_score
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "helper.py").write_text("def same(rows): return rows\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_job_runs_in_a_folder_with_modules_of_our_names(folder, model):
    assert_runs(folder, model, {}, *PROCESSES)


def test_a_job_runs_on_flink_in_a_folder_with_modules_of_our_names(folder, model, flink_jars):
    assert_runs(folder, model, {"runner": "flink", "flink": {"job_server_jar": str(flink_jars / "job-server.jar")}})


def assert_runs(folder, model, engine, *beam_options):
    jobs.write_people(folder / "data", 2, 100)
    engine = {"split_bytes": "2KiB"} | engine
    job = jobs.write_job(folder, model("multiply"), preprocess="steps:age_in_years", engine=engine)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "beam_score.pipeline.cli", "run", job, "--", *beam_options],
        cwd=folder,
        env=jobs.environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert jobs.manifest(folder / "out")["counts"]["predicted"] == 200


@pytest.fixture
def path_of_the_command(monkeypatch):
    """As `pipeline.cli.main` leaves it; modules that a test imports are forgotten."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p] + [""])
    importlib.invalidate_caches()
    yield
    for name in sys.modules.keys() - known:
        del sys.modules[name]


def test_a_function_is_looked_for_in_the_folder_of_the_command_first(folder, path_of_the_command):
    (folder / "wave.py").write_text("def f(rows): return 'of the folder'\n")  # there is one in the standard library
    sys.modules.pop("wave", None)
    assert load_function("wave:f")(None) == "of the folder"
    assert load_function("steps:age_in_years")("rows") == "rows"
    assert load_function("json:dumps")([1]) == "[1]"


def test_a_function_in_a_module_of_our_name_is_refused_with_a_reason(folder, path_of_the_command):
    with pytest.raises(PreprocessError, match="'beam_score' is the name of a package of beam-score itself: rename"):
        load_function("beam_score:f")


def test_a_function_may_be_in_a_module_of_a_name_that_many_have(folder, path_of_the_command):
    sys.modules.pop("transforms", None)
    (folder / "transforms.py").write_text("def f(rows): return 'of the folder'\n")
    assert load_function("transforms:f")(None) == "of the folder"


def test_worker_processes_that_die_before_they_connect_end_the_run(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerDied, match="exited with code 1, before it had connected"):
        Local(EngineSettings(workers=2), PROCESSES).run(lambda p: p | beam.Create(range(4)) | beam.Reshuffle())
