"""A large file is dropped from the page cache once it is on the disk, so that a run takes no more and more new memory
from the system; a small one is left in it. Nothing else depends on it."""

import errno
import os

import pytest

from beam_score.transforms.durable import disk, on_disk

LARGE = [bytes([i % 251]) * 100_000 for i in range(30)]


class Counted(disk.Disk):
    """Notes the size of each file that is dropped; with an error, each drop fails with it."""

    def __init__(self):
        self.dropped, self.error = [], None

    def drop_cached(self, descriptor):
        self.dropped.append(os.fstat(descriptor).st_size)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        super().drop_cached(descriptor)


@pytest.fixture
def counted():
    counted = Counted()
    disk.use(counted)
    yield counted
    disk.use(disk.Disk())


def test_of_large_files_alone(counted, tmp_path):
    on_disk.write_new(tmp_path / "large", *LARGE)
    on_disk.write_new(tmp_path / "small", b"x" * 1000)
    assert counted.dropped == [3_000_000]
    assert (tmp_path / "large").read_bytes() == b"".join(LARGE) and (tmp_path / "small").stat().st_size == 1000


def test_where_that_fails_the_file_is_there(counted, tmp_path):
    counted.error = errno.EINVAL
    on_disk.write_new(tmp_path / "large", *LARGE)
    assert counted.dropped and (tmp_path / "large").read_bytes() == b"".join(LARGE)
