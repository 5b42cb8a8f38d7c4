"""Job files, contracts and records that were changed at random: each is refused in a sentence, or works. None ends in a
traceback, none asks to be reported, and none makes anything outside of the output folder go."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pydantic
import pytest
from store_jobs import StoreJob

from beam_score.pipeline.job.job import load_job
from beam_score.pipeline.job.job_text import parse_value
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.process.errors import explain
from beam_score.pipeline.run.clean import clean
from beam_score.pipeline.run.status import Watcher
from beam_score.pipeline.show.status_view import as_dict, as_line
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.contract.inputs import Input
from beam_score.transforms.contract.outputs import Output
from beam_score.transforms.durable.sealed import seal
from beam_score.transforms.ledger.budget import Budget

A, B = "20260101T000000-aaaaaa", "20260101T000001-bbbbbb"
SEEDS = range(4)
OF_A_SEED = 20

JOB = """\
input:
  files: [data/*.csv, "more/*.csv"]
  format: csv
  csv: {delimiter: ",", header: true, nulls: [NA, ""]}
  max_row_bytes: 16MiB
model: {path: models/people, version: latest, signature: serving_default, batch_rows: auto, deadline: 5s}
columns:
  age:    {dtype: float32, range: [0, 150], unit: years}
  tags:   {dtype: string, shape: [3], allowed: [a, b, c], max_length: 8}
  count:  {dtype: int64, required: false, default: 3, nulls: ["-"]}
  flag:   {dtype: bool}
preprocess: features:make
inputs:
  x: {pack: [age, count], standardize: {mean: [40, 5e4], std: [12, 3e4]}, cast: float32, reshape: [2, 1]}
  y: {column: tags, pad: ""}
outputs:
  probabilities: {meaning: probabilities, labels: ["no", "yes"], top: 1, threshold: 0.5, as: p}
output: {path: out/1, format: parquet, keep: [id], position: false, not_finite: string}
rejects: {payload: full, budget: 1%, files: 0, stop_after: 10}
engine: {runner: local, workers: auto, split_bytes: 64MB, block_bytes: 1MB, intra_op_threads: 1, xla: "off"}
"""

VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**40, 0.0, -0.5, 1.5, float("nan"), float("inf"), 1e308, "",
    " ", "x", "no", "1%", "-1%", "1e999%", "inf%", "nan%", "infMB", "nanGB", "-5MB", "1e400KB", "infs", "nans",
    "-1m", "é\u202e\x1b[2J",
    "a" * 300, "\ud800", "\x00", "../..", "gs://", "s3://b/k", "file:///x", "{}", "[1", "os:system", ":",
    "float32", "int8", "auto",
    [], [None], [[]], [1, 2, 3], ["a"], ["a", "a"], [1, "a", None], [float("nan"), 1], [[1]] * 3, [0], [-1, None],
    [10**40, 10**41],
    {}, {"a": 1}, {"dtype": "int8"}, {"": {}}, {"x": None}, {"dtype": "int8", "shape": [10**12]}, {1: 2},
    {"#a": {"dtype": "int8"}},
]  # fmt: skip


def spots(value, at=()):
    """The places in plain data: keys and indices on the way to each value."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from spots(child, (*at, key))


def changed(value, random_, times=3):
    """A copy in which a few places have another value, another key, or nothing."""
    value = copy.deepcopy(value)
    for _ in range(random_.randint(1, times)):
        places = [at for at in spots(value) if at]
        if not places:
            return value
        *way, last = random_.choice(places)
        holder = value
        for key in way:
            holder = holder[key]
        how = random_.random()
        if how < 0.6:
            holder[last] = copy.deepcopy(random_.choice(VALUES))
        elif how < 0.75:
            del holder[last]
        elif isinstance(holder, dict):
            holder[random_.choice(["", "dtype", "x" * 200, "é", "path", "\x1b[2J", "a.b"])] = holder.pop(last)
        else:
            holder.append(copy.deepcopy(random_.choice(VALUES)))
    return value


def is_told(error: Exception, codes=(1, 2, 5, 6)) -> None:
    """Fails where an error is one that a person would be asked to report."""
    code, said = explain(error)
    text = "\n".join(said)
    assert code in codes and "please report it" not in text and "Traceback" not in text, text
    assert said and all(said), said
    assert all(len(sentence) < 20_000 for sentence in said)


# Job files.


def load(path: Path, text: str | bytes):
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        job = load_job(str(path))
    except JobError as error:
        is_told(error, codes=(2,))
        return None
    except Exception as error:
        pytest.fail(f"{type(error).__name__}: {error}\n{text!r}")
    job.as_json()  # what is accepted can be put on record
    return job


def plain_job():
    return parse_value(JOB, "job")


def test_the_job_that_is_changed_is_a_valid_one(tmp_path):
    assert load(tmp_path / "job.yaml", JOB).columns.keys() == {"age", "tags", "count", "flag"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_file_with_other_values(tmp_path, seed):
    random_, job = random.Random(seed), plain_job()
    for _ in range(OF_A_SEED):
        load(tmp_path / "job.yaml", json.dumps(changed(job, random_)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_file_with_other_characters(tmp_path, seed):
    random_, pieces = random.Random(seed), [
        "[", "]", "{", "}", ":", "- ", "&a ", "*a", "!!int ", "!!python/name:os.system ", "\n", "\t", "  ", "'",
        '"', "#", "|\n",
        ">", "%YAML 1.1\n---\n", "---\n", "...", "<<: ", "? ", "\x00", "\x1b", "\u2028", "\ufeff", "é", "9" * 400,
        "0x", "1:2:3",
        "2026-13-45", "2026-01-01T99:00:00Z", "!!binary x", "!!timestamp ", "!!set ", "~", "=", "@", "`", ",",
        "1e999", "0o9",
    ]  # fmt: skip
    for _ in range(OF_A_SEED // 2):
        text = JOB
        for _ in range(random_.randint(1, 4)):
            at = random_.randrange(len(text))
            how = random_.random()
            if how < 0.5:
                text = text[:at] + random_.choice(pieces) + text[at:]
            elif how < 0.8:
                text = text[:at] + text[at + random_.randint(1, 30) :]
            else:
                other = random_.randrange(len(text))
                text = text[:at] + text[other : other + random_.randint(1, 60)] + text[at:]
        load(tmp_path / "job.yaml", text)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_file_that_is_no_text(tmp_path, seed):
    random_ = random.Random(seed)
    for _ in range(20):
        content = bytearray(JOB.encode())
        for _ in range(random_.randint(1, 5)):
            content[random_.randrange(len(content))] = random_.randrange(256)
        load(tmp_path / "job.yaml", bytes(content))
    load(tmp_path / "job.yaml", random_.randbytes(500))


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_that_are_set_on_the_command_line(tmp_path, seed):
    random_ = random.Random(seed)
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    keys = [".".join(map(str, at)) for at in spots(plain_job()) if at] + [
        "",
        ".",
        "a..b",
        "columns.x.y.z",
        "=",
        "input.files.0",
    ]
    for _ in range(OF_A_SEED):
        value = random_.choice(
            [json.dumps(random_.choice(VALUES)), "[", "&a [*a]", "*a", "9" * 5000, "2026-99-99", "{a: b: c}"]
        )
        try:
            load_job(str(path), [f"{random_.choice(keys)}={value}"])
        except JobError as error:
            is_told(error, codes=(2,))


# Contracts.


@pytest.mark.parametrize("seed", SEEDS)
def test_contracts_of_any_settings(seed):
    random_ = random.Random(seed)
    own = {
        Column: {"dtype": ["int8", "uint64", "float16", "float64", "bool", "string", "bytes"]},
        Input: {"column": ["a"], "pack": [["a", "b"]], "serialize": [["a"]], "cast": ["int8", "float16"]},
        Output: {"meaning": ["raw", "probabilities", "logits", "probability"]},
    }
    for _ in range(OF_A_SEED):
        for kind, usual in own.items():
            names = list(kind.model_fields)
            fields = {
                n: random_.choice(usual.get(n, []) * 20 + VALUES) for n in random_.sample(names, random_.randint(1, 5))
            }
            if kind is Column:
                fields.setdefault("dtype", random_.choice(usual["dtype"]))
            fields = {kind.model_fields[n].serialization_alias or n: copy.deepcopy(v) for n, v in fields.items()}
            try:
                found = kind.model_validate(fields)
            except pydantic.ValidationError:
                continue
            except Exception as error:
                pytest.fail(f"{kind.__name__} {fields}: {type(error).__name__}: {error}")
            if kind is Column:
                assert found.describe() and found.arrow_type is not None
                assert not found.is_numeric or len(found.limits) == 2


# Records.


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """Files of an output folder with a published run, and one over it that is over its budget; by relative path."""
    output = tmp_path_factory.mktemp("standing") / "out"
    StoreJob(str(output), "a", splits=2).launch(A)
    StoreJob(str(output), "b", splits=2, budget=Budget(rows=0, share=None)).launch(B, replace=True)
    return {str(p.relative_to(output)): p.read_bytes() for p in output.rglob("*") if p.is_file()}


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fuzzed(name: str, content: bytes, random_) -> bytes:
    """A record changed: mostly so that its checksum fits."""
    if random_.random() < 0.2:
        at = random_.randrange(len(content))
        return content[:at] + random_.choice([b"", b"\x00", b"[", b'"']) + content[at + random_.randint(0, 40) :]
    fields = json.loads(content)
    is_sealed = fields.pop("crc32c", None) is not None
    values = [
        *VALUES,
        "../../victim",
        "../../victim/precious",
        A,
        B,
        "20260101T000002-cccccc",
        "/etc",
        f"predictions/{A}-00000.jsonl",
    ]
    for _ in range(random_.randint(1, 3)):
        *way, last = random_.choice([at for at in spots(fields) if at])
        holder = fields
        for key in way:
            holder = holder[key]
        if random_.random() < 0.8:
            holder[last] = copy.deepcopy(random_.choice(values))
        else:
            del holder[last]
        if not fields:
            break
    try:
        text = json.dumps(fields).encode()
        return seal(json.loads(text, parse_constant=lambda _: None)) if is_sealed and fields else text
    except (TypeError, ValueError, UnicodeEncodeError):
        return b"{}"


@pytest.mark.parametrize("seed", range(6))
def test_records_of_any_content(tmp_path, standing, seed):
    random_ = random.Random(seed)
    records = sorted(name for name in standing if name.endswith(".json"))
    for turn in range(6):
        lake = tmp_path / f"lake{turn}"
        output, victim = lake / "out", lake / "victim"
        put(output, standing)
        put(
            victim,
            {"precious": b"mine", "parts/predictions-000000-aaaaaaaaaaaa-0.jsonl": b"mine", "plan.json": b"mine"},
        )
        for name in random_.sample(records, random_.randint(1, 2)):
            (output / name).write_bytes(fuzzed(name, standing[name], random_))
        before = everything(lake)

        def tried(call):
            try:
                return call()
            except Exception as error:
                is_told(error)
                return None

        status = tried(lambda: Watcher(str(output)).look())  # noqa: B023
        if status is not None:
            json.dumps(as_dict(status)), as_line(status)
        tried(lambda: clean(str(output), dry_run=True, unfinished=True))  # noqa: B023
        assert everything(lake) == before, "looking changes nothing"
        for call in (
            lambda: StoreJob(str(output), "c").launch("20260101T000003-dddddd"),  # noqa: B023
            lambda: StoreJob(str(output), "b", splits=2).launch("20260101T000004-eeeeee"),  # noqa: B023
            lambda: clean(str(output)),  # noqa: B023
            lambda: StoreJob(str(output), "c").launch("20260101T000005-ffffff", replace=True, restart=True),  # noqa: B023
            lambda: clean(str(output), unfinished=True),  # noqa: B023
        ):
            tried(call)
        after = everything(lake)
        assert {n: c for n, c in after.items() if not n.startswith("out/")} == {
            n: c for n, c in before.items() if not n.startswith("out/")
        }
