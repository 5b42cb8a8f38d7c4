"""Fixtures for all tests, and what they say at the end."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

pytest.register_assert_rewrite("dirty", "forks", "kills", "outcomes")  # before they are imported

# Tests start many processes. Without compiled modules on disk, importing TensorFlow takes 18 s of CPU instead of 5.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="beam-score-state-")  # the key of whoever runs the tests

import faults  # noqa: E402
import kills  # noqa: E402
import models  # noqa: E402
from emulators import gcs, gcs_server, s3, s3_server, store  # noqa: E402, F401
from flink import cluster, jars  # noqa: E402
from forks import shared  # noqa: E402
from outcomes import make_scene  # noqa: E402

_ON_ONE_CLUSTER = (
    "test_engines_agree",
    "test_flink_starts_and_ends",
    "test_jobs_outlive_their_launcher",
    "test_a_real_cluster_survives",
)
"""The files that use the Flink cluster. The last one kills a machine of it."""

_LONGEST = (
    *_ON_ONE_CLUSTER,
    "test_every_call_may_fail",
    "test_all_or_nothing",
    "test_failures_inside",
    "test_dead_letters_are_replayed",
    "test_whatever_dies_nothing_is_lost",
    "test_many_at_once",
    "test_schedulers",
    "test_the_command_line",
    "test_progress_can_be_seen_from_anywhere",
    "test_outputs_in_object_stores",
    "test_any_table_in_any_format",
    "test_the_lock_installs_as_it_stands",
    "test_jsonl_is_read_exactly",
    "test_the_protocol_holds_in_any_order",
    "test_a_users_folder_shadows_nothing",
    "test_dataflow_without_the_cloud",
    "test_serve_versions_under_load",
    "test_serve_versions",
    "test_serve_rollout",
    "test_serve_model_lists",
)
"""The files that take half a minute or more. They come first, so that no worker of pytest is alone with one at the
end."""


def pytest_collection_modifyitems(items):
    """Order the files."""
    items.sort(key=lambda item: _LONGEST.index(item.path.stem) if item.path.stem in _LONGEST else len(_LONGEST))


class _Files(LoadFileScheduling):
    """Gives each file to one worker of pytest, so that its fixtures are made once, and all files on the cluster to the
    same one."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return "the cluster" if Path(file).stem in _ON_ONE_CLUSTER else file


def pytest_xdist_make_scheduler(config, log):
    """Serve `--dist loadfile`, as in `make test`."""
    return _Files(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """`model(name)` is the folder of the SavedModel that `tests.models.NAME` writes, built once."""
    folder, built = tmp_path_factory.mktemp("models"), {}

    def build(name):
        if name not in built:
            built[name] = str(getattr(models, name)(folder / name))
        return built[name]

    return build


@pytest.fixture(scope="session")
def forks():
    """A server of processes that run the command line; see `forks.Forks`."""
    return shared()


@pytest.fixture(scope="session")
def stage(tmp_path_factory, model, forks):
    """A job, another over the same files, and what comes out of both; see `kills.Stage`."""
    scene = make_scene(tmp_path_factory.mktemp("stage"), model("echo"), model("doubled"))
    return kills.Stage.set(scene, forks)


@pytest.fixture(scope="session")
def flink_jars():
    """A folder with Flink's job server and jars; see `flink.jars.fetched`."""
    try:
        return jars.fetched()
    except jars.Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Flink cannot be run here: {missing}")


@pytest.fixture(scope="session")
def flink_cluster(flink_jars, tmp_path_factory):
    """A standalone cluster whose workers do what `faults` says; see `flink.cluster.Cluster`."""
    folder = tmp_path_factory.mktemp("flink")
    with cluster.standing(flink_jars, folder / "cluster", **{faults.FOLDER: str(folder)}) as standing:
        yield standing


def pytest_terminal_summary(terminalreporter):
    """What the kills of all tests cost."""
    told = [dict(report.user_properties) for report in terminalreporter.getreports("passed")]
    told = [of for of in told if "kills" in of]
    if told:
        done, rows, undisturbed = (sum(of[name] for of in told) for name in ("kills", "rows", "undisturbed"))
        terminalreporter.write_line(kills.work_done(done, rows, undisturbed))
