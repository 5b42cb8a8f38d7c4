"""What the protocol asks of an object store, of each store that there is: `transforms.stores.objects.ObjectStore`."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import pytest
from faulty_proxy import Fault

from beam_score.transforms.stores.objects import ABSENT, ObjectInfo, ObjectPath, VersionMismatch
from beam_score.transforms.stores.registry import check_bucket, store_of


@pytest.fixture
def at(store):
    return ObjectPath.parse(store.url("a/folder"))


@pytest.fixture
def client(at):
    return store_of(at)


def test_what_is_written_is_read_and_told(client, at):
    written = client.write(at / "x", [b"one ", memoryview(b"two")])
    found = client.info(at / "x")
    assert client.read(at / "x") == b"one two"
    assert (found.path, found.size, found.version) == (at / "x", 7, written.version)
    assert found.crc32c == written.crc32c == f"{google_crc32c.value(b'one two'):08x}"
    assert found.updated > 1e9


def test_any_bytes_can_be_written_and_names_need_no_care(client, at):
    content, name = bytes(range(256)) * 100, "ü + 100% of [a]?&=#.json"
    client.write(at / name, [content])
    assert client.read(at / name) == content
    assert [f.path for f in client.list(at)] == [at / name]
    client.copy(at / name, at / f"{name} 2")
    assert client.read(at / f"{name} 2") == content


def test_a_large_object_comes_whole(client, at):
    content = os.urandom(1 << 20) * 20
    client.write(at / "large", [content[:5], memoryview(content)[5:]])
    assert client.info(at / "large").size == len(content)
    assert client.read(at / "large") == content


def test_a_range_is_read_and_ends_where_the_object_ends(client, at):
    version = client.write(at / "x", [b"0123456789"]).version
    client.write(at / "empty", [b""])
    assert client.read(at / "x", 2, 5, version) == b"234"
    assert client.read(at / "x", 8, 99) == b"89"
    assert client.read(at / "x", 8) == b"89"
    assert client.read(at / "x", 10, 20) == b""
    assert client.read(at / "x", 3, 3) == b""
    assert client.read(at / "empty") == client.read(at / "empty", 0, 5) == b""


def test_another_version_is_not_read(client, at):
    version = client.write(at / "x", [b"before"]).version
    client.write(at / "x", [b"after!"])
    for range_ in ((), (0, 3)):
        with pytest.raises(VersionMismatch):
            client.read(at / "x", *range_, version=version)


def test_what_is_not_there_is_told(client, at):
    assert client.info(at / "x") is None
    assert list(client.list(at)) == []
    client.remove(at / "x")
    assert client.remove(at / "x", only="1") is False
    for call in (lambda: client.read(at / "x"), lambda: client.copy(at / "x", at / "y")):
        with pytest.raises(FileNotFoundError) as raised:
            call()
        assert raised.value.filename == str(at / "x")


def test_a_missing_bucket_is_named(client, store):
    nowhere = ObjectPath(store.scheme, "no-such-bucket", "x")
    for call in (lambda: check_bucket(nowhere), lambda: client.write(nowhere, [b"x"])):
        with pytest.raises(FileNotFoundError, match="bucket"):
            call()


def test_only_one_of_many_creates(client, at):
    def create(number: int) -> bool:
        try:
            client.write(at / "x", [b"%d" % number], only_over=ABSENT)
        except VersionMismatch:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(16)))
    assert won.count(True) == 1
    assert client.read(at / "x") == b"%d" % won.index(True)


def test_a_version_is_swapped_once(client, at):
    first = client.write(at / "x", [b"first"]).version
    second = client.write(at / "x", [b"second"], only_over=first).version
    with pytest.raises(VersionMismatch):
        client.write(at / "x", [b"third"], only_over=first)
    assert client.read(at / "x", version=second) == b"second"
    client.remove(at / "x")
    with pytest.raises(VersionMismatch):
        client.write(at / "x", [b"third"], only_over=second)


def test_only_the_version_meant_is_removed(client, at):
    first = client.write(at / "x", [b"first"]).version
    second = client.write(at / "x", [b"second"]).version
    assert client.remove(at / "x", only=first) is False
    assert client.read(at / "x") == b"second"
    assert client.remove(at / "x", only=second) is True
    assert client.info(at / "x") is None
    assert client.remove(at / "x", only=second) is False


def test_a_folder_is_listed_in_order_with_or_without_what_is_below(client, at):
    names = ["a", "b/1", "b/2", "c", "d/e/3"]
    for name in reversed(names):
        client.write(at / name, [b"x"])
    client.write(at.parent / "folder2", [b"x"])  # begins alike, and is not in it
    assert [f.path for f in client.list(at)] == [at / name for name in names]
    flat = list(client.list(at, recursive=False))
    assert [f.path if isinstance(f, ObjectInfo) else f for f in flat] == [at / "a", at / "b", at / "c", at / "d"]
    assert [isinstance(f, ObjectInfo) for f in flat] == [True, False, True, False]


def test_a_folder_of_thousands_is_listed_by_pages(client, at, store, monkeypatch):
    monkeypatch.setattr("beam_score.transforms.stores.gcs._PAGE", 1000)  # else the emulator gives all at once
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: client.write(at / f"{n:04d}", [b"x"]), range(1_010)))
    store.proxy.reset()
    assert [f.path.name for f in client.list(at)] == [f"{n:04d}" for n in range(1_010)]
    assert len(store.proxy.requests) == 2


# Many at once.


@pytest.fixture
def many(client, at) -> list[ObjectPath]:
    """More objects than one request takes on Google Cloud Storage."""
    paths = [at / "ü + 100% of [a]?&=#", *(at / f"{n:04d}" for n in range(220))]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: client.write(path, [path.name.encode()]), paths))
    return paths


def test_many_are_copied_and_removed(client, many, at, store):
    target = at.parent / "copies"
    client.write(target / "0007", [b"in the way"])
    client.copy_all([(path, target / path.name) for path in many])
    assert {f.path.name: f.crc32c or f.version for f in client.list(target)} == {
        f.path.name: f.crc32c or f.version for f in client.list(at)
    }
    assert client.read(target / "0007") == b"0007"
    store.proxy.reset()
    client.remove_all([*many, at / "never there"])
    assert list(client.list(at)) == []
    removals = [r for r in store.proxy.requests if r.method != "GET"]
    assert len(removals) == {"gs": 3, "s3": 1}[store.scheme]
    client.remove_all([])
    client.copy_all([])


@pytest.mark.parametrize("store", ["s3"], indirect=True)
@pytest.mark.parametrize("status", [400, 501])
def test_a_store_that_knows_no_removal_of_many_is_asked_for_each(client, many, at, store, status):
    with store.proxy.failing(fault := Fault("status", "POST", r"\?delete", status=status, times=100)):
        client.remove_all(many)
    assert fault.done == 1
    assert list(client.list(at)) == []


def test_what_is_not_there_cannot_be_copied_with_the_others(client, many, at):
    with pytest.raises(FileNotFoundError) as raised:
        client.copy_all([(path, at.parent / path.name) for path in [*many[:3], at / "none"]])
    assert raised.value.filename == str(at / "none")


def test_a_large_one_that_cannot_be_copied_with_the_others_is_named():
    """Of a large one the store copies a piece a call, and the rest is asked for by itself."""
    from beam_score.transforms.stores.gcs import GoogleStore

    class Piecewise(GoogleStore):
        def _requests(self):
            return self

        def many(self, calls):
            return [(200, '{"done": false}')] * len(calls)

        def copy(self, source, target):
            raise FileNotFoundError(errno.ENOENT, "no such object", str(source))

    with pytest.raises(FileNotFoundError) as raised:
        Piecewise().copy_all([(ObjectPath("gs", "bucket", "a"), ObjectPath("gs", "bucket", "b"))])
    assert raised.value.filename == "gs://bucket/a"


@pytest.mark.parametrize("kind", ["status", "reset", "lost", "truncate"])
def test_many_that_fail_once_are_tried_again(client, many, at, store, kind):
    for call in (
        lambda: client.copy_all([(path, at.parent / "copies" / path.name) for path in many]),
        lambda: client.remove_all(many),
    ):
        with store.proxy.failing(fault := Fault(kind)):
            call()
        assert fault.done == 1
    assert [f.path.name for f in client.list(at.parent / "copies")] == sorted(path.name for path in many)
    assert list(client.list(at)) == []


def test_of_many_those_that_fail_are_tried_again_by_themselves(client, many, at, store):
    with store.proxy.failing(fault := Fault("within", target="000[37]( |$)", times=2)):
        client.remove_all(many[:10])
    assert fault.done == 2
    assert [len(asked(r)) for r in store.proxy.requests if r.fault == "within"] == [10, 2]
    assert sorted(f.path.name for f in client.list(at)) == sorted(path.name for path in many[10:])


def asked(request) -> list[str]:
    """What a request for many is about."""
    return request.target.partition("#")[2].split("/o/" if "batch" in request.target else "a/folder/")[1:]


def test_of_many_one_that_is_denied_is_named_and_the_others_are_removed(client, many, at, store):
    with (
        store.proxy.failing(fault := Fault("within", target="0003( |$)", status=403, times=100)),
        pytest.raises(PermissionError, match="denied") as raised,
    ):
        client.remove_all(many[1:9])
    assert raised.value.filename == str(at / "0003")
    assert fault.done == 1
    assert [f.path.name for f in client.list(at)][:2] == ["0003", "0008"]


def test_many_that_fail_for_ever_are_given_up_in_time(client, many, at, store, monkeypatch):
    monkeypatch.setenv("BEAM_SCORE_STORE_RETRY_S", "2")
    with (
        store.proxy.failing(Fault("within", target="0003( |$)", times=1000)),
        pytest.raises(OSError, match="gave up after 2 s") as raised,
    ):
        client.remove_all(many[1:9])
    assert raised.value.filename == str(at / "0003")


@pytest.mark.parametrize("kind", ["status", "reset", "lost", "truncate"])
def test_a_request_that_fails_once_is_tried_again(client, at, store, kind):
    client.write(at / "x", [b"0123456789" * 100])
    for call in (
        lambda: client.read(at / "x") == b"0123456789" * 100,
        lambda: client.read(at / "x", 5, 15) == b"5678901234",
        lambda: client.info(at / "x").size == 1000,
        lambda: [f.path for f in client.list(at)] == [at / "x"],
        lambda: client.write(at / "x", [b"0123456789" * 100]).size == 1000,
        lambda: client.copy(at / "x", at.parent / "y") is None,
        lambda: client.remove(at.parent / "y") in (True, False),
    ):
        fault = Fault(kind)
        with store.proxy.failing(fault):
            assert call()
        assert fault.done == 1
    assert client.info(at.parent / "y") is None


def test_a_lost_answer_to_a_creation_is_told_as_another_was_first(client, at, store):
    with store.proxy.failing(Fault("lost", target="x")), pytest.raises(VersionMismatch):
        client.write(at / "x", [b"mine"], only_over=ABSENT)
    assert client.read(at / "x") == b"mine"


def test_a_store_that_never_answers_is_given_up_in_time(client, at, store, monkeypatch):
    monkeypatch.setenv("BEAM_SCORE_STORE_RETRY_S", "2")
    with store.proxy.failing(Fault("status", times=1000)), pytest.raises(OSError, match="gave up after 2 s") as raised:
        client.write(at / "x", [b"x"])
    assert raised.value.filename == str(at / "x")


def test_denied_access_is_told_at_once(client, at, store):
    for call in (lambda: client.write(at / "x", [b"x"]), lambda: client.read(at / "x"), lambda: client.info(at / "x")):
        with (
            store.proxy.failing(fault := Fault("status", status=403, times=1000)),
            pytest.raises(PermissionError, match="denied") as raised,
        ):
            call()
        assert raised.value.filename == str(at / "x")
        assert fault.done == 1


def test_missing_credentials_are_told_in_a_sentence(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PermissionError, match="AWS_ACCESS_KEY_ID"):
        check_bucket(ObjectPath.parse(s3.url()))


def test_after_a_fork_both_processes_have_connections_of_their_own(client, at):
    client.write(at / "x", [b"x" * 100_000])
    child = os.fork()
    if not child:
        right = all(client.read(at / "x") == b"x" * 100_000 for _ in range(20))
        os._exit(0 if right else 1)
    assert all(client.read(at / "x") == b"x" * 100_000 for _ in range(20))
    assert os.waitpid(child, 0)[1] == 0


def test_without_its_library_a_sentence_says_what_to_install():
    code = "import sys; sys.modules['boto3'] = None\n"
    code += "from beam_score.transforms.stores.registry import store_of; store_of('s3')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode
    assert "pip install 'beam-score[s3]'" in ended.stderr.splitlines()[-1]
