"""A failing read of a sound file is tried again, then fails the run: it is never a dead letter.

Damage is what the bytes themselves show; see `transforms.stores.local_file`.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jobs
import pyarrow as pa
import pytest
import zstandard
from test_inputs_that_change_are_refused import FORMATS, ROWS, write

from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.launch import run
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import Chunk
from beam_score.transforms.formats.reading.blocks import read_range
from beam_score.transforms.listing.files import list_files
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import NO_REJECTED
from beam_score.transforms.stores import local_file as local_files
from beam_score.transforms.stores.compression import CorruptStream, RawStream
from beam_score.transforms.stores.local_file import Calls, LocalFile, ReadFails, is_of_the_system, retried

HERE = Path(__file__).parent / "kit"
MOMENTS = (errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ETIMEDOUT)


@pytest.fixture
def system():
    """Makes another object stand for the system until the test ends."""
    yield local_files.use
    local_files.use(Calls())


class Failing(Calls):
    """Fails one kind of call, once or for ever, as soon as `ready()`."""

    def __init__(self, call: str, number: int, times: int = 1, path: str = ""):
        self.left, self.failed = times, 0
        setattr(self, call, lambda *arguments: self._make(call, number, path, *arguments))

    def _make(self, call, number, path, *arguments):
        name = os.readlink(f"/proc/self/fd/{arguments[0]}") if call in ("read_at", "size") else arguments[0]
        if self.left and path in str(name):
            self.left, self.failed = self.left - 1, self.failed + 1
            raise OSError(number, os.strerror(number))
        return getattr(Calls, call)(self, *arguments)


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    library = tmp_path_factory.mktemp("preload") / "failing_reads.so"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.fail("no C compiler") if os.environ.get("CI") else pytest.skip("no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, HERE / "failing_reads.c", "-ldl"], check=True)
    return str(library)


def test_a_read_that_fails_once_costs_nothing_and_one_that_goes_on_failing_is_told(preload, tmp_path):
    paths = []
    for format_ in (*FORMATS, "avro", "orc"):
        (tmp_path / format_).mkdir()
        paths.append(str(write(tmp_path / format_, format_)[0]))
    done = subprocess.run(
        [sys.executable, HERE / "failing_reads.py", str(errno.EIO), *paths],
        env=jobs.environment(LD_PRELOAD=preload),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for path, found in json.loads(done.stdout).items():
        came = [what for _, times, what in found if times == 1]
        assert len(came) >= 3 and came == [{"rows": ROWS, "rejected": 0}] * len(came), (path, found)
        for *_, what in found[len(came) :]:
            assert what.keys() == {"error"} and f"{path}: Input/output error" in what["error"]


@pytest.mark.parametrize("call", ["open", "read_at", "size", "stat", "lstat", "real_path", "list"])
@pytest.mark.parametrize("number", MOMENTS, ids=errno.errorcode.get)
def test_every_call_is_tried_again(call, number, system, tmp_path):
    path, _ = write(tmp_path, "csv", rows=3)
    (tmp_path / "link.csv").symlink_to(path)
    system(failing := Failing(call, number, times=2))
    (file,), problems = list_files([str(tmp_path / "*.csv"), str(tmp_path / "link.csv")])
    with LocalFile(file.path) as stream:
        stream.seek(0, os.SEEK_END)
        assert stream.tell() == file.size
        stream.seek(0)
        assert stream.read() == path.read_bytes()
    assert not problems and (failing.failed == 2 or call == "lstat")


def test_what_does_not_pass_is_not_tried_again(system, tmp_path):
    system(failing := Failing("open", errno.EACCES, times=100))
    with pytest.raises(PermissionError):
        LocalFile(str(tmp_path / "rows.csv"))
    assert failing.failed == 1


def test_a_file_is_read_on_from_its_position_by_a_new_handle(system, tmp_path):
    (tmp_path / "rows.csv").write_bytes(bytes(range(100)))

    class Stale(Calls):
        """A handle that is stale stays so."""

        def __init__(self):
            self.stale = set()

        def read_at(self, descriptor, count, position):
            if position == 40 and not self.stale:
                self.stale.add(descriptor)
            if descriptor in self.stale:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return super().read_at(descriptor, count, position)

        def close(self, descriptor):
            assert descriptor in self.stale or len(self.stale) == 1
            super().close(descriptor)

    class Apart(Stale):
        """A new handle has another number."""

        def open(self, path):
            descriptor = super().open(path)
            return os.dup(descriptor) if descriptor in self.stale else descriptor

    system(Apart())
    with LocalFile(str(tmp_path / "rows.csv")) as stream:
        assert b"".join(iter(lambda: stream.read(20), b"")) == bytes(range(100))


def test_a_stale_handle_whose_close_fails_is_closed_once(system, tmp_path):
    (tmp_path / "rows.csv").write_bytes(bytes(range(100)))

    class Stale(Calls):
        """Each handle has a new number. The first becomes stale, and the kernel closes it with an error."""

        def __init__(self):
            self.real, self.closed = {}, []

        def open(self, path):
            self.real[number := 1000 + len(self.real)] = super().open(path)
            return number

        def read_at(self, descriptor, count, position):
            if descriptor in self.closed or (position == 40 and len(self.real) == 1):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return super().read_at(self.real[descriptor], count, position)

        def close(self, descriptor):
            self.closed.append(descriptor)
            super().close(self.real[descriptor])
            if len(self.closed) == 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    system(stale := Stale())
    with LocalFile(str(tmp_path / "rows.csv")) as stream:
        assert b"".join(iter(lambda: stream.read(20), b"")) == bytes(range(100))
    assert stale.closed == list(stale.real) == [1000, 1001]


class Reader:
    """A format's reader that fails so often after its second chunk."""

    def __init__(self, error: Exception, times: int):
        self.error, self.times = error, times

    def read(self, range_, settings):
        for at in range(4):
            if at == 2 and self.times:
                self.times -= 1
                raise self.error
            yield Chunk(pa.RecordBatch.from_pydict({ROW: pa.array([at])}), NO_REJECTED)


SHORT_OF_MEMORY = [MemoryError(), pa.ArrowMemoryError("malloc of size 65536 failed")]


@pytest.mark.parametrize("error", [*SHORT_OF_MEMORY, OSError(errno.EIO, "Input/output error")], ids=repr)
def test_a_range_is_read_anew_and_no_row_comes_twice(error):
    range_ = FileRange("rows.parquet", 1)
    chunks = read_range(Reader(error, 2), range_, None, waits_s=(0, 0))
    assert [chunk.rows[ROW].to_pylist() for chunk in chunks] == [[0], [1], [2], [3]]
    with pytest.raises(ReadFails, match=r"^rows\.parquet: .*tried 3 times.*the same command continues"):
        list(read_range(Reader(error, 3), range_, None, waits_s=(0, 0)))


def test_too_little_memory_is_no_damage_but_a_length_that_no_file_has_is():
    assert all(is_of_the_system(error) for error in SHORT_OF_MEMORY)
    assert not is_of_the_system(pa.ArrowMemoryError("malloc of size 9223372036854775744 failed"))
    assert not is_of_the_system(OSError("Corrupt snappy compressed data."))  # as pyarrow tells damage
    assert explain(RuntimeError("x\npyarrow.lib.ArrowMemoryError: malloc of size 65536 failed"))[0] == 1


class Decompressor:
    """Of zstd, on a machine without memory; the text is that of libzstd."""

    eof, unused_data = False, b""

    def decompress(self, data):
        raise zstandard.ZstdError("zstd decompressor error: Allocation error : not enough memory")


def test_a_decompressor_without_memory_is_no_damage(tmp_path):
    path = tmp_path / "rows.csv.zst"
    path.write_bytes(zstandard.compress(b"x\n1\n"))
    with RawStream(str(path)) as stream:
        stream._members._begin()
        stream._members._member = Decompressor()
        with pytest.raises(MemoryError, match="not enough memory"):
            stream.read(10)
    path.write_bytes(path.read_bytes()[:-1])
    with RawStream(str(path)) as stream, pytest.raises(CorruptStream):
        list(iter(lambda: stream.read(10), b""))


def test_retried_tells_how_often():
    waits = (0, 0, 0)
    calls = iter(range(10))

    def stale():
        next(calls)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with pytest.raises(ReadFails, match=r"^a/b: Stale file handle \(tried 4 times\)"):
        retried("a/b", stale, waits)
    assert next(calls) == 4


def test_a_run_whose_input_cannot_be_read_fails_and_the_same_command_goes_on(system, model, tmp_path):
    bad = jobs.write_people(tmp_path / "data", 4, 1000, bad_every=50)
    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": "100%", "files": 9}, engine={"workers": 1})
    reading = Failing("read_at", errno.EIO, times=0, path="people-3.csv")
    system(reading)
    planned = jobs.plan(job)  # then the fault begins
    reading.left = 10**9
    with pytest.raises(Exception, match="people-3") as caught:
        run(job)
    code, said = explain(caught.value)
    assert code == 1 and "people-3.csv: Input/output error" in said[0] and "the same command" in said[0]
    assert not (tmp_path / "out" / "manifest.json").exists() and planned.splits > 4
    reading.left = 0
    assert run(job).code == 0
    manifest = jobs.manifest(tmp_path / "out")
    assert manifest["run"] == planned.folder.run
    assert manifest["counts"]["predicted"] == 4000 - bad and manifest["counts"]["stretches"] == 0


def test_one_read_that_fails_changes_nothing(system, model, tmp_path):
    bad = jobs.write_people(tmp_path / "data", 2, 1000, bad_every=50)
    job = jobs.job(tmp_path, model("multiply"), rejects={"budget": "100%"}, engine={"workers": 1})
    reading = Failing("read_at", errno.ESTALE, times=3, path="people-1.csv")
    system(reading)
    assert run(job).code == 0 and reading.failed == 3
    counts = jobs.manifest(tmp_path / "out")["counts"]
    assert (counts["read"], counts["predicted"], counts["stretches"]) == (2000, 2000 - bad, 0)
