"""Compressed files: told by their bytes, read to the last byte before any damage, in bounded memory."""

import bz2
import gzip
import random
import tracemalloc

import pytest
import zstandard

from beam_score.transforms.stores.compression import CorruptStream, RawStream, Refuted, compression_of, damage_of

TEXT = b"".join(b'{"id": %d, "x": %r}\n' % (i, random.Random(i).random()) for i in range(20_000))
PACK = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
SUFFIX = {"gzip": ".gz", "bzip2": ".bz2", "zstd": ".zst"}


def read_all(path, n=50_000):
    """All bytes that a stream gives, and the message of the damage after them, if any."""
    parts = []
    with RawStream(str(path)) as stream:
        try:
            while part := stream.read(n):
                parts.append(part)
        except CorruptStream as error:
            with pytest.raises(CorruptStream):
                stream.read(n)
            data, damage = b"".join(parts), error
        else:
            return b"".join(parts), None
    assert isinstance(damage, Refuted) == (damage.sound_bytes is not None and damage.sound_bytes < len(data))
    return data[: damage.sound_bytes], str(damage)


@pytest.mark.parametrize("kind", PACK)
class TestEachCompression:
    def test_is_told_by_the_bytes_and_not_the_name(self, kind, tmp_path):
        path = tmp_path / "rows.txt"
        path.write_bytes(PACK[kind](TEXT))
        assert compression_of(str(path)) == kind
        assert read_all(path) == (TEXT, None)

    def test_several_members_are_one_content(self, kind, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(PACK[kind](TEXT) + PACK[kind](b"") + PACK[kind](b"tail\n") + PACK[kind](TEXT))
        assert read_all(path) == (TEXT + b"tail\n" + TEXT, None)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999999])
    def test_cut_off_gives_all_before_the_cut(self, kind, share, tmp_path):
        path = tmp_path / "a"
        packed = PACK[kind](TEXT)
        path.write_bytes(packed[: int(len(packed) * share)])
        data, damage = read_all(path)
        assert TEXT.startswith(data)
        assert "cut off" in damage
        if kind == "gzip":
            assert len(data) > len(TEXT) * share * 0.8
        if kind == "zstd":
            assert len(data) > len(TEXT) * share - 140_000

    @pytest.mark.parametrize("n", [1, 1000, 50_000, 1 << 20])
    @pytest.mark.parametrize("at", [-8, -7, -3, -1])
    def test_a_checksum_that_does_not_hold_refuses_all_of_its_member(self, kind, n, at, tmp_path):
        path = tmp_path / "a"
        packed = bytearray(PACK[kind](TEXT[-2000:] if n == 1 else TEXT))
        packed[{"zstd": max(at, -4), "gzip": at, "bzip2": min(max(at, -4), -3)}[kind]] ^= 0x40  # CRC, size, checksum
        path.write_bytes(PACK[kind](b"first\n") + PACK[kind](b"second\n") + bytes(packed) + PACK[kind](b"after\n"))
        data, damage = read_all(path, n)
        assert data == b"first\nsecond\n"
        assert "checksum" in damage
        assert str(damage_of(str(path))) == damage
        with RawStream(str(path), sound=damage_of(str(path))) as stream:
            found = b""
            while len(found) < len(data):
                found += stream.read(n)
            assert found == data
            with pytest.raises(CorruptStream, match="checksum") as error:
                stream.read(n)
        assert (type(error.value), str(error.value)) == (CorruptStream, damage)

    def test_garbage_behind_gives_all_the_content_first(self, kind, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(PACK[kind](TEXT) + b"garbage, not a member")
        data, damage = read_all(path)
        assert data == TEXT
        assert "not " + kind in damage

    def test_damage_in_the_second_member_gives_all_of_the_first(self, kind, tmp_path):
        path = tmp_path / "a"
        second = bytearray(PACK[kind](TEXT))
        second[len(second) // 2 : len(second) // 2 + 40] = bytes(40)
        path.write_bytes(PACK[kind](TEXT) + bytes(second))
        data, damage = read_all(path)
        assert data.startswith(TEXT)
        assert damage

    def test_zero_bytes_under_a_compressed_name_is_damage(self, kind, tmp_path):
        path = tmp_path / ("a" + SUFFIX[kind])
        path.write_bytes(b"")
        assert read_all(path) == (b"", f"the {kind} file is empty: zero bytes")

    def test_nothing_compressed_is_nothing(self, kind, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(PACK[kind](b""))
        assert read_all(path) == (b"", None)

    def test_a_bomb_allocates_little(self, kind, tmp_path):
        path = tmp_path / "a"
        path.write_bytes(PACK[kind](bytes(200_000_000)))
        with RawStream(str(path)) as stream:
            assert stream.read(1 << 20)
            tracemalloc.start()
            for _ in range(3):
                assert 0 < len(stream.read(1 << 20)) < 6 << 20
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 16 << 20

    @pytest.mark.parametrize("seed", range(6))
    def test_any_damage_ends_in_damaged_and_nothing_else(self, kind, seed, tmp_path):
        path, rng = tmp_path / "a", random.Random(seed)
        packed = bytearray(PACK[kind](TEXT[:50_000]))
        for _ in range(rng.randint(1, 4)):
            packed[rng.randrange(4, len(packed))] = rng.randrange(256)
        path.write_bytes(bytes(packed))
        read_all(path, n=rng.choice([1_000, 1 << 20]))


def test_damage_within_a_piece_gives_what_precedes_it(tmp_path):
    """The two members are decompressed in one call, which fails as a whole."""
    path = tmp_path / "a"
    bad = bytearray(gzip.compress(b"b" * 100))
    bad[-8] ^= 1
    path.write_bytes(gzip.compress(b"first\n") + bytes(bad))
    assert read_all(path)[0] == b"first\n"


def test_a_block_of_bzip2_that_its_checksum_refuses_is_given_up_and_those_before_it_stand(tmp_path):
    path, text = tmp_path / "a", random.Random(1).randbytes(250_000)
    packed = bytearray(bz2.compress(text, 1))  # blocks of 100 kB
    packed[170_000] ^= 1
    path.write_bytes(bytes(packed))
    for n in (1000, 1 << 20):
        data, damage = read_all(path, n)
        assert text.startswith(data)
        assert 95_000 < len(data) <= 100_000
        assert "block" in damage


def test_a_sound_file_has_no_damage(tmp_path):
    for kind, pack in PACK.items():
        (tmp_path / kind).write_bytes(pack(TEXT))
        assert damage_of(str(tmp_path / kind)) is None
    (tmp_path / "plain").write_bytes(TEXT)
    assert damage_of(str(tmp_path / "plain")) is None


def test_plain_files_are_given_as_they_are(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT)
    assert compression_of(str(path)) is None
    assert read_all(path) == (TEXT, None)
    with RawStream(str(path), 10, 30) as stream:
        assert stream.read(1000) == TEXT[10:30]
        assert stream.read(1000) == b""


def test_a_plain_file_of_zero_bytes_is_empty(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"")
    assert read_all(path) == (b"", None)


def test_gzip_padded_with_zeros_is_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(TEXT) + bytes(100_000))
    assert read_all(path) == (TEXT, None)


def test_skippable_zstd_frames_are_passed_over(tmp_path):
    path = tmp_path / "a"
    skippable = b"\x50\x2a\x4d\x18" + (100_000).to_bytes(4, "little") + bytes(100_000)
    path.write_bytes(PACK["zstd"](b"one\n") + skippable + PACK["zstd"](b"two\n"))
    assert read_all(path) == (b"one\ntwo\n", None)
