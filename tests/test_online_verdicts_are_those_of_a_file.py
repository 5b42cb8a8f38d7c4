"""A row is judged online as in a file: the same prediction, the same reason, column and message."""

from __future__ import annotations

import json
import random
from pathlib import Path

import jobs
import pytest

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.serve.answering.answer import Request
from beam_score.pipeline.serve.answering.rows import CONTRACT, Rows
from beam_score.pipeline.serve.answering.served import Served
from beam_score.pipeline.serve.answering.signature import Tensorial
from beam_score.pipeline.serve.answering.verdicts import Verdicts
from beam_score.pipeline.serve.binding import steps_of
from beam_score.transforms.model.loading import load_once

COLUMNS = {
    "id": {"dtype": "int64"},
    "a": {"dtype": "float32", "range": [0, 150]},
    "b": {"dtype": "float32", "finite": False},
    "c": {"dtype": "float32", "default": 0.5},
    "note": {"dtype": "string", "required": False, "max_length": 8, "default": ""},
}
INPUTS = {"x": {"pack": ["a", "b", "c"]}}

VALUES = {
    "id": ["1", "-7", "9223372036854775807", "9223372036854775808", "1.0", "1e3", "2.5", "true", '"1"', "null", "[1]"],
    "a": ["1", "149.9999", "150", "150.00001", "-0.0", "-1e-30", "1e400", "1e39", "3.4028235e38", '"x"', "{}", "null"],
    "b": ["0.1", "16777217", "1e-46", "-1e39", "false", "[]", '"0.1"', "123456789012345678901234567890"],
    "c": ["0.5", "null", '""', "[0.5]"],
    "note": ['"ok"', '"}, {"', '"\\ud800"', '"\\u00e9\\n"', '"far too long for it"', "5", '"a\\"b"', "null"],
}


def lines(count: int, seed: int = 1) -> list[str]:
    """Return rows as JSON text: most good, some with a fault or several, in any order of keys and with gaps."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        row = {"id": str(number), "a": "1.5", "b": "2", "c": "0.25", "note": '"n"'}
        for name in chance.sample(list(row), chance.choice([0, 0, 1, 1, 2])):
            row[name] = chance.choice(VALUES[name])
        if chance.random() < 0.1:
            row.pop(chance.choice(list(row)))
        if chance.random() < 0.1:
            row["extra"] = '{"deep": [1, {"er": "}, {"}]}'
        items = list(row.items())
        chance.shuffle(items)
        comma, colon = chance.choice([(", ", ": "), (",", ":"), (" , ", " : ")])
        made.append("{" + comma.join(f'"{k}"{colon}{v}' for k, v in items) + "}")
    made += ['{"id": 5, "id": 6, "a": 1, "b": 2}', "[1, 2]", "5", '{"a": 1}', "{}", '"text"', "null"]
    return made


@pytest.fixture(scope="module")
def job(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("online")
    (folder / "rows.jsonl").write_text("".join(line + "\n" for line in lines(400)))
    return parse_job(
        {
            "input": {"files": str(folder / "*.jsonl")},
            "model": {"path": model("echo"), "batch_rows": 64},
            "columns": COLUMNS,
            "inputs": INPUTS,
            "output": {"path": str(folder / "out"), "position": True, "format": "jsonl", "not_finite": "string"},
            "rejects": {"budget": "100%", "payload": "none"},
            "engine": {"workers": 1},
        }
    )


@pytest.fixture(scope="module")
def offline(job):
    """The verdict of a run on each row, by its number: a prediction, or the faults."""
    import beam_score

    outcome = beam_score.run(job)
    assert outcome.manifest["counts"]["read"] == len(lines(400))
    return run_verdicts(job)


def run_verdicts(job) -> dict:
    """Return the verdicts of a finished run, by the number of the row."""
    output = job.output.path
    verdicts = {}
    for path in Path(output, "predictions").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            del row["source"]
            verdicts[row.pop("row")] = row
    for letter in jobs.dead_letters(Path(output)):
        errors = letter["errors"]
        verdicts[letter["row"]] = [(e["column"], e["reason"], e["message"].removesuffix(OF_FILES)) for e in errors]
    return verdicts


OF_FILES = "; if the file is one JSON array, write a line for each of its elements, as with jq -c '.[]'"
"""Advice that only a message of a run has."""


@pytest.fixture(scope="module")
def served(job):
    return serves(job)


def serves(job) -> Served:
    from beam_score.transforms.model.versions import hash_model

    steps = steps_of(job, job.model.path, hash_model(job.model.path))
    loaded = load_once(job.model.path, steps.call.signature.name, 1, steps.call.sha256)
    return Served(Rows(Verdicts(steps, loaded, job.input.csv)), {"serving_default": Tensorial(loaded)}, CONTRACT)


def asked(served, rows: list[list[str]]) -> list[dict]:
    """Return the answers to requests with these instances, asked in one batch."""
    bodies = [('{"instances": [' + ", ".join(own) + '], "on_error": "row"}').encode() for own in rows]
    answers = served.answer([Request(str(n), body) for n, body in enumerate(bodies)])
    assert [answer.status for answer in answers] == [200] * len(rows)
    return [json.loads(answer.body) for answer in answers]


def verdicts(answer: dict) -> list:
    """Return the verdict on each instance of an answer, as `offline` has them."""
    found = list(answer["predictions"])
    for error in answer.get("errors", ()):
        index = error["index"]
        found[index] = [*(found[index] or []), (error["column"], error["reason"], error["message"])]
    return found


def test_each_row_alone_has_the_verdict_of_the_run(served, offline):
    rows = lines(400)
    for number in range(0, len(rows), 13):
        assert verdicts(*asked(served, [[rows[number]]])) == [offline[number]], rows[number]


@pytest.mark.parametrize("size", [1, 3, 40, 60])
def test_rows_of_many_requests_in_one_batch_have_the_verdicts_of_the_run(served, offline, size):
    rows = lines(400)
    cut = [rows[at : at + size] for at in range(0, len(rows), size)]
    found = [verdict for answer in asked(served, cut) for verdict in verdicts(answer)]
    assert found == [offline[number] for number in range(len(rows))]


def test_a_bad_row_refuses_its_request_alone_and_all_its_faults_are_listed(served, offline):
    rows = lines(400)
    good = [n for n, verdict in offline.items() if isinstance(verdict, dict)][:20]
    bad = [n for n, verdict in offline.items() if isinstance(verdict, list)][:20]
    bodies = []
    for one, other in zip(good, bad, strict=True):
        bodies += [f'{{"instances": [{rows[one]}]}}', f'{{"instances": [{rows[one]}, {rows[other]}]}}']
    answers = served.answer([Request(str(n), body.encode()) for n, body in enumerate(bodies)])
    for number, (one, other) in enumerate(zip(good, bad, strict=True)):
        assert json.loads(answers[2 * number].body) == {"predictions": [offline[one]]}
        refused = json.loads(answers[2 * number + 1].body)
        assert answers[2 * number + 1].status == 400 and list(refused)[:3] == ["error", "code", "request_id"]
        assert refused["rejected"] == 1
        assert [(d["column"], d["reason"], d["message"]) for d in refused["details"]] == offline[other]
        assert {d["index"] for d in refused["details"]} == {1}


def test_columns_have_the_verdicts_of_rows(served, offline):
    rows = [json.loads(line) for line in lines(60) if line.startswith("{")]
    good = [n for n in range(60) if isinstance(offline[n], dict) and set(rows[n]) >= set(COLUMNS)]
    columns = {name: [rows[n][name] for n in good] for name in COLUMNS}
    (answer,) = served.answer([Request("", json.dumps({"inputs": columns}).encode())])
    outputs = json.loads(answer.body)["outputs"]
    assert [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)] == [
        offline[n] for n in good
    ]


def test_rows_as_json_lines_have_the_verdicts_of_the_run(served, offline):
    rows = lines(400)
    for at in range(0, len(rows), 60):
        (answer,) = served.answer([Request("", "\n".join(rows[at : at + 60]).encode(), "lines;partial")])
        assert verdicts(json.loads(answer.body)) == [offline[n] for n in range(at, min(at + 60, len(rows)))]


def test_a_column_that_the_job_does_not_allow_is_refused_online(tmp_path, job):
    import beam_score

    rows = [line for line in lines(200) if "note" in line or "extra" in line]
    (tmp_path / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    read = {"files": str(tmp_path / "*.jsonl"), "extra": "reject", "max_row_bytes": 90}
    own = parse_job(
        job.as_json() | {"input": read, "output": job.as_json()["output"] | {"path": str(tmp_path / "out")}}
    )
    beam_score.run(own)
    expected = run_verdicts(own)
    reasons = {fault[1] for verdict in expected.values() if isinstance(verdict, list) for fault in verdict}
    assert {"not_allowed", "too_large"} <= reasons
    found = [verdict for answer in asked(serves(own), [rows[:60], rows[60:120]]) for verdict in verdicts(answer)]
    assert found == [expected[n] for n in range(len(found))]


def csv_lines(count: int, seed: int = 2) -> list[str]:
    """Return records of CSV: most good, some with a fault or several."""
    texts = {
        "id": ["1", " 2", "+3", "1.0", "x", "", "9223372036854775808", '"7"'],
        "a": ["149.9999", "150.00001", "1e400", "1e39", "-0", "", '"1,5"', "0x1", "nan"],
        "b": ["16777217", "inf", "1e-46", "", "1_0"],
        "c": ["", "NULL", "0.25 ", "none"],
        "note": ['"a ""b"", c"', '"line\nbreak"', "far too long for it", "", "\u00e9"],
    }
    chance = random.Random(seed)
    made = []
    for number in range(count):
        row = {"id": str(number), "a": "1.5", "b": "2", "c": "0.25", "note": "n"}
        for name in chance.sample(list(row), chance.choice([0, 0, 1, 1, 2])):
            row[name] = chance.choice(texts[name])
        fields = list(row.values())
        made.append(",".join(fields[: chance.choice([5] * 9 + [4])] + ["more"] * (chance.random() < 0.05)))
    return made


@pytest.mark.parametrize("header", [True, False])
def test_rows_as_csv_have_the_verdicts_of_the_run(tmp_path, job, header):
    import beam_score

    first = ",".join(COLUMNS) + "\n" if header else ""
    rows = csv_lines(200)
    (tmp_path / "rows.csv").write_text(first + "".join(f"{row}\n" for row in rows))
    read = {"files": str(tmp_path / "*.csv"), "csv": {"header": header, "nulls": ["NULL"]}}
    own = parse_job(
        job.as_json() | {"input": read, "output": job.as_json()["output"] | {"path": str(tmp_path / "out")}}
    )
    beam_score.run(own)
    expected = run_verdicts(own)
    assert len(expected) == len(rows) and sum(isinstance(verdict, list) for verdict in expected.values()) > 50
    online = serves(own)
    for at in range(0, len(rows), 50):
        body = (first + "".join(f"{row}\n" for row in rows[at : at + 50])).encode()
        (answer,) = online.answer([Request("", body, "csv;partial")])
        assert answer.status == 200, answer.body
        assert verdicts(json.loads(answer.body)) == [expected[n] for n in range(at, at + 50)]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "expected one of the keys"),
        (b'{"instances": []}', "at least one instance"),
        (b'{"instances": [{"id": 1},]}', "not JSON"),
        (b'{"instances": [{"id": 1}] "x"}', "not JSON"),
        (b'{"instances": [{"id": 1}], "inputs": {}}', "expected one of the keys"),
        (b'{"instances": [{"id": 1}], "instances": []}', "twice"),
        (b'{"instances": [{"id": 1}], "on_error": "never"}', "on_error"),
        (b'{"signature_name": 5, "instances": [{"id": 1}]}', "must be a string"),
        (b'{"signature_name": "nix", "instances": [{"id": 1}]}', "not found in signature def"),
        (b'{"inputs": {"id": [1], "a": [1, 2]}}', "the same number"),
        (b'{"inputs": {"id": []}}', "at least one row"),
        (b'\xff{"instances": []}', "not UTF-8"),
        (b'{"instances": ' + b"[" * 100_000, "nested deeper"),
    ],
)
def test_a_body_that_holds_no_rows_is_refused_with_what_is_expected(served, body, problem):
    (answer, other) = served.answer([Request("r", body), Request("s", f'{{"instances": [{lines(1)[0]}]}}'.encode())])
    assert answer.status == 400 and problem in json.loads(answer.body)["error"]
    assert json.loads(answer.body)["request_id"] == "r" and other.received == 1


def test_a_value_is_in_no_message(served):
    bodies = [f'{{"instances": [{line}]}}'.encode() for line in lines(400)]
    bodies += [line.encode() for line in lines(400)]
    for answer in served.answer([Request("", body) for body in bodies]):
        if answer.status != 200:
            for value in ("far too long", "123456789012345678901234567890", "16777217", "149.9999"):
                assert value not in json.loads(answer.body)["error"]


def test_a_call_has_as_many_rows_as_the_job_says(job):
    set_ = job.model_copy(update={"serve": job.serve.model_validate({"batching": {"rows": 7}})})
    assert steps_of(set_, job.model.path, "").call.most_rows == 7
