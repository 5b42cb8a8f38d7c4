"""What matches a pattern and cannot be looked at is an error at launch, with its path; it is never left out."""

import errno
import glob
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_score.transforms.listing.files import list_files, look_at_file
from beam_score.transforms.listing.objects import folder_that_fits, is_matched
from beam_score.transforms.model.signature import ModelError
from beam_score.transforms.model.versions import find_version, hash_model
from beam_score.transforms.stores import local_file as local_files
from beam_score.transforms.stores.local_file import Calls, ReadFails

TREE = (
    "a.csv",
    "b.csv",
    "[x].csv",
    "c.txt",
    "_d.csv",
    ".e.csv",
    "in/a.csv",
    "in/deep/f.csv",
    "in/_s/g.csv",
    "on/a.csv",
)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"x\n{name}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def failing():
    """Makes one kind of call fail on paths that end with a text, with an error that lasts."""

    def order(call: str, number: int, end: str) -> None:
        class Failing(Calls):
            pass

        def fail(self, path):
            if str(path).endswith(end):
                raise OSError(number, os.strerror(number), str(path))
            return getattr(Calls, call)(self, path)

        setattr(Failing, call, fail)
        local_files.use(Failing())

    yield order
    local_files.use(Calls())


def paths(*patterns):
    files, problems = list_files(patterns)
    assert not problems, problems
    return [file.path for file in files]


def problem(*patterns):
    (found,) = list_files(patterns)[1]
    return found


PARTS = st.sampled_from(["*", "**", "*.csv", "in", "on", "?n", "[io]n", "a.csv", "_*", "*s", "**.csv", "deep", ".*"])


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=4))
def test_patterns_mean_what_they_mean_to_glob(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "tree"
    for name in TREE if not root.exists() else ():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x\n")
    pattern = os.path.join(str(root), *parts)
    shows_hidden = any(part.startswith(("_", ".")) for part in parts)
    expected = {
        path
        for path in glob.glob(pattern, recursive=True)
        if os.path.isfile(path) and (shows_hidden or not any(p[0] in "_." for p in Path(path).relative_to(root).parts))
    }
    if any(c in pattern for c in "*?["):
        assert {file.path for file in list_files([pattern])[0]} == expected


def test_a_file_is_found_once_however_it_is_spelled(tree):
    os.symlink("in", tree / "link")
    os.symlink("../in", tree / "in" / "loop")
    os.symlink("a.csv", tree / "z.csv")
    assert paths("**/a.csv") == ["a.csv", "in/a.csv", "on/a.csv"]
    assert paths("link/*.csv", "in/./a.csv") == ["link/a.csv"]
    assert paths("./*.csv") == ["./[x].csv", "./a.csv", "./b.csv"]
    assert paths("[x].csv") == ["[x].csv"]  # named outright


@pytest.mark.parametrize("pattern", ["*.csv", "**", "**/*.csv", "{}", "*/a.csv", "{}/gone.csv"])
def test_a_link_that_leads_nowhere_is_an_error(tree, pattern):
    link = tree / ("on/gone.csv" if pattern.startswith("{}/") else "gone.csv")
    if pattern == "*/a.csv":
        link = tree / "gone"  # it may be a folder that is not mounted
    link.symlink_to("/nowhere/at-all")
    pattern = pattern.format(link.parent if "/gone" in pattern else link)
    assert f"{link.name} is a link to /nowhere/at-all, which does not exist" in problem(pattern)


def test_links_and_folders_that_are_passed_over_are_not_looked_at(tree):
    for name in ("_gone.csv", ".gone.csv", "gone.txt"):
        (tree / name).symlink_to("/nowhere")
    assert paths("*.csv") == ["[x].csv", "a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("call", "end", "pattern"),
    [
        ("list", "in", "**/*.csv"),
        ("list", "in/", "in/*.csv"),
        ("list", "deep", "**"),
        ("stat", "b.csv", "*.csv"),
        ("stat", "b.csv", "b.csv"),
        ("stat", "in/a.csv", "*/a.csv"),
        ("real_path", "in/", "in/*"),
    ],
)
def test_what_cannot_be_looked_at_is_told_with_its_path(tree, failing, call, end, pattern):
    failing(call, errno.EACCES, end)
    assert "Permission denied" in problem(pattern) and end in problem(pattern)


def test_an_error_of_the_moment_that_does_not_pass_fails_the_launch(tree, failing):
    failing("stat", errno.ESTALE, "b.csv")
    with pytest.raises(ReadFails, match=r"^b\.csv: Stale file handle \(tried \d+ times\)"):
        list_files(["*.csv"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_an_error(tree):
    (tree / "in").chmod(0)
    try:
        assert "in: Permission denied" in problem("**/*.csv")
    finally:
        (tree / "in").chmod(0o755)


def test_pipes_sockets_and_devices_are_refused(tree):
    os.mkfifo(tree / "pipe.csv")
    assert "pipe.csv is a named pipe, expected a regular file" in problem("*.csv")
    assert "pipe.csv is a named pipe" in problem("pipe.csv")
    (tree / "pipe.csv").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock.csv")
        assert "sock.csv is a socket" in problem("*.csv")
    assert "/dev/null is a device" in problem("/dev/null")


def test_folders_that_match_are_passed_over_and_named(tree):
    (tree / "out.csv").mkdir()
    (tree / "out.csv" / "part-0.csv").write_text("x\n1\n")
    folders: list[str] = []
    files, problems = list_files(["*.csv"], folders=folders)
    assert (len(files), problems, folders) == (3, [], ["out.csv"])
    assert "out.csv is a folder: add /*" in problem("o*.csv")
    files, problems = list_files(["**/*.csv"], folders=(folders := []))
    assert "out.csv/part-0.csv" in [file.path for file in files] and not problems and not folders


def test_a_file_of_a_replay_is_gone_or_cannot_be_looked_at_and_these_are_two_things(tree, failing):
    assert look_at_file("a.csv").size == len("x\na.csv\n")
    assert look_at_file("gone.csv") is None and look_at_file("a.csv/x") is None
    failing("stat", errno.EACCES, "a.csv")
    with pytest.raises(PermissionError):
        look_at_file("a.csv")


OUTPUTS = ["out/predictions/run-00000.parquet", "out/rejected/run-00000.jsonl", "out/manifest.json"]


@pytest.mark.parametrize(
    ("pattern", "own"),
    [
        ("**/*.parquet", 0),
        ("out/*/*.jsonl", 1),
        ("**", 0),
        ("*/*/*", 0),
        ("link/**", 0),
        ("*/link/*.jsonl", 1),
        ("**/*.csv", None),
        ("*", None),
        ("in/**", None),
    ],
)
def test_a_pattern_that_would_match_the_jobs_own_output_is_a_problem_before_there_is_any(tree, pattern, own):
    (tree / "real").mkdir()
    os.symlink("real", tree / "out")
    os.symlink(".", tree / "link") if pattern.startswith("link") else None
    if pattern.startswith("*/link"):
        (tree / "real" / "rejected").mkdir()
        os.symlink("../real/rejected", tree / "in" / "link")
    written = [os.path.realpath(path) for path in OUTPUTS]
    problems = list_files([pattern], written)[1]
    assert (own is None) == (not problems)
    if own is not None:
        assert written[own] in problems[0] and "narrower pattern" in problems[0]


def versions(folder, *names):
    for name in names:
        (folder / name / "variables").mkdir(parents=True)
        (folder / name / "saved_model.pb").write_bytes(b"model")
        (folder / name / "variables" / "variables.index").write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("broken", ["3", "3/saved_model.pb"])
def test_a_newer_model_version_that_cannot_be_looked_at_is_not_passed_over(tmp_path, failing, broken):
    folder = versions(tmp_path / "models", "1", "2")
    assert find_version(folder).version == "2"
    (folder / broken).parent.mkdir(exist_ok=True)
    (folder / broken).symlink_to("/nowhere")
    with pytest.raises(ModelError, match=rf"{broken} is a link to /nowhere, which does not exist"):
        find_version(folder)
    (folder / broken).unlink()
    failing("stat", errno.EACCES, "2/saved_model.pb")
    with pytest.raises(PermissionError):
        find_version(folder)


def test_a_model_whose_folders_cannot_be_listed_has_no_hash(tmp_path, failing):
    folder = versions(tmp_path / "models", "1") / "1"
    whole = hash_model(folder)
    failing("list", errno.EACCES, "variables")
    with pytest.raises(PermissionError):
        hash_model(folder)
    local_files.use(Calls())
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError, match="pipe is neither a file nor a folder"):
        hash_model(folder)
    (folder / "pipe").unlink()
    assert hash_model(folder) == whole


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("gs://b/data/**", True),
        ("gs://b/data/*/predictions/*.parquet", True),
        ("gs://b/data/out/predictions", True),  # a folder stands for what is right in it
        ("gs://b/**/*.parquet", True),
        ("gs://b/data/*", False),
        ("gs://b/data/**/*.csv", False),
        ("gs://other/data/**", False),
        ("s3://b/data/**", False),
    ],
)
def test_a_pattern_of_objects_that_would_match_the_jobs_own_output_is_known(pattern, matched):
    assert is_matched("gs://b/data/out/predictions/run-00000.parquet", pattern) is matched
    assert not is_matched("gs://b/data/out/_staging/run/plan.json", pattern)  # such names are passed over


@pytest.mark.parametrize(
    ("name", "wanted", "is_folder", "folder"),
    [
        ("more.csv/part-0", ["*.csv"], False, "more.csv"),
        ("more.csv", ["*.csv"], True, "more.csv"),
        ("more.csv", ["*.csv"], False, None),
        ("a/more/part-0", ["*", "more"], False, "a/more"),
        ("_more/part-0", ["*"], False, None),
    ],
)
def test_folders_of_objects_that_match_are_named(name, wanted, is_folder, folder):
    assert folder_that_fits(name, wanted, is_folder) == folder
