"""Whether a job can publish where it is told to, and whether it would read what it wrote, is found out at launch."""

import errno
import os
from pathlib import Path

import jobs
import pytest

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.output_place import output_problems
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.transforms.durable.disk import Disk, use

ROWS = 20


@pytest.fixture
def disk():
    yield use
    use(Disk())


class Without(Disk):
    """A disk on which a call cannot be made."""

    def __init__(self, call: str, number: int):
        def fail(*arguments):
            raise OSError(number, os.strerror(number))

        setattr(self, call, fail)


@pytest.fixture
def job(tmp_path, model):
    jobs.write_people(tmp_path / "data", 2, ROWS)
    return lambda **sections: jobs.job(tmp_path, model("multiply"), **sections)


def test_predictions_on_another_file_system_are_found_out_before_scoring(tmp_path, job):
    (tmp_path / "out").mkdir()
    with jobs.small_disk(tmp_path / "out" / "predictions", "size=1m"):
        (problem,) = output_problems(job(), [])
        assert str(tmp_path / "out" / "predictions") in problem and "is on another file system than" in problem
        with pytest.raises(JobError, match="on another file system"):
            prepare(job())


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_found_out_before_scoring(tmp_path, job, disk, number):
    disk(Without("link", number))
    (problem,) = output_problems(job(), [])
    assert "has no hard links" in problem and os.strerror(number) in problem and str(tmp_path) in problem


def test_a_file_system_without_locks_is_found_out_before_scoring(tmp_path, job, disk):
    disk(Without("lock", errno.ENOLCK))
    (problem,) = output_problems(job(), [])
    assert "has no locks (No locks available)" in problem and str(tmp_path) in problem


@pytest.mark.parametrize("call", ["open", "lock", "link"])
def test_an_error_of_the_moment_is_not_the_file_systems_nature(tmp_path, job, disk, call):
    disk(Without(call, errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        output_problems(job(), [])
    assert not list(tmp_path.rglob(".probe*"))


@pytest.mark.parametrize("call", ["open", "link"])
def test_a_full_disk_is_told_by_the_run_that_needs_room(job, disk, call):
    disk(Without(call, errno.ENOSPC))
    assert output_problems(job(), []) == []


@pytest.mark.parametrize("made", [(), ("out",), ("out/predictions", "out/rejected", "out/_staging")])
def test_nothing_is_left_of_the_trial(tmp_path, job, made):
    for folder in made:
        (tmp_path / folder).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert output_problems(job(), []) == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("files", "output", "links"),
    [
        ("data/**/*.csv", "data/out", {}),
        ("data/**", "data/out", {}),
        ("data/**/*.jsonl", "data/out", {}),
        ("data/**", "elsewhere", {"elsewhere": "data/in"}),
        ("elsewhere/**", "data/out", {"elsewhere": "data"}),
        ("data/*/predictions/*", "real", {"data/link": "real"}),
        ("data/*/*/*.jsonl", "out", {"data/link": "out"}),
    ],
)
def test_an_output_that_the_input_pattern_would_match_is_refused_at_the_first_launch(
    tmp_path, job, files, output, links
):
    for folder in ("data/in", "real", "out"):
        (tmp_path / folder).mkdir()
    for link, target in links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    jobs.write_people(tmp_path / "data" / "in", 1, ROWS)
    sections = {"input": {"files": str(tmp_path / files)}, "output": {"path": str(tmp_path / output)}}
    of = job(**sections)
    if files == "data/**/*.csv":  # predictions are Parquet, dead letters JSON Lines
        assert len(prepare(of).files) == 3
        return
    with pytest.raises(JobError, match="would match files that this job writes"):
        prepare(of)


@pytest.mark.parametrize("way", ["folder", "file"])
def test_an_output_that_holds_an_input_file_by_way_of_a_link_is_refused(tmp_path, job, way):
    (tmp_path / "out").mkdir()
    jobs.write_people(tmp_path / "out" / "old", 1, ROWS)
    link, target = ("more", "old") if way == "folder" else ("more.csv", "old/people-0.csv")
    (tmp_path / "data" / link).symlink_to(tmp_path / "out" / target)
    files = str(tmp_path / "data" / "**" / "*.csv")
    with pytest.raises(JobError, match=rf"holds input files \({tmp_path}/data/more"):
        prepare(job(input={"files": files}))


def test_folders_that_match_are_named_at_launch(tmp_path, job, caplog):
    Path(tmp_path, "data", "more.csv").mkdir()
    assert len(prepare(job()).files) == 2
    assert f"folders that match are skipped ({tmp_path}/data/more.csv)" in caplog.text
