"""Requests in JSON Lines and CSV, and answers in both, as SageMaker sends and reads them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Sequence

from beam_score.pipeline.serve.answering.answer import AS_CSV, AS_LINES, HEADER, NO_HEADER, Answer, Request, refusal
from beam_score.pipeline.serve.tensors.read_json import Refused
from beam_score.transforms.arrays.plain import concat
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import Chunk, ReadSettings, UnusableFile, format_named
from beam_score.transforms.formats.csv.options import CsvOptions
from beam_score.transforms.formats.jsonl.exact import Malformed, members
from beam_score.transforms.framing.csv import fields

_NOT_CSV = {"unreadable": "the body is not text", "bad_encoding": "the body is not text in UTF-8"}
"""What is said in place of the messages with these reasons, which advise how to mend a file."""


def from_lines(request: Request) -> Request:
    """Return a request in JSON Lines as one in JSON. Raises Refused: a line is not JSON."""
    lines = {number: line for number, line in enumerate(request.body.splitlines(), 1) if line.strip()}
    for number, line in lines.items():
        try:
            members(line.decode())
        except UnicodeDecodeError as error:
            raise Refused(f"line {number}: not UTF-8 at byte {error.start}") from None
        except Malformed as error:
            problem, at = error.args
            raise Refused(f"line {number}: not JSON: {problem} at character {at}") from None
    body = b'{"instances":[' + b",".join(lines.values()) + b"]}"
    return dataclasses.replace(request, body=body, form="json" + request.form.removeprefix("lines"))


def from_csv(body: bytes, read: ReadSettings, options: Sequence[str], dialect: CsvOptions) -> Chunk:
    """Return the rows of a CSV text, read as a file of a job is.

    Args:
      options: of the request, which say whether it has a header.
      read: the contract.
      dialect: all other settings of CSV.

    Raises:
      Refused: no row can be read.
    """
    first = body.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").splitlines()[:1]
    if not first:
        raise Refused("the body has no row")
    found = fields(first[0].decode(errors="replace"), *dialect.dialect)
    header = HEADER in options or (NO_HEADER not in options and not read.columns.columns.keys().isdisjoint(found))
    file = os.memfd_create("request")
    try:
        os.write(file, body)
        path = f"/proc/self/fd/{file}"
        own = dialect.model_copy(update={"header": header})
        settings = dataclasses.replace(read, format="csv", options=own)
        chunks = list(format_named("csv").read(FileRange(path, len(body)), settings))
    except UnusableFile as error:
        raise Refused(_NOT_CSV.get(error.reason, error.message)) from None
    except ValueError as error:  # a column of the contract is not of one value
        raise Refused(str(error)) from None
    finally:
        os.close(file)
    if not chunks:
        raise Refused("the body has no row")
    return Chunk(concat([chunk.rows for chunk in chunks]), concat([chunk.rejected for chunk in chunks]))


def rendered(answer: Answer, request: Request) -> Answer:
    """Return an answer with `predictions` in the form that its request asks for: a line for each row, without a header;
    a refused row is `null` in JSON Lines, and an empty line in CSV."""
    options = request.options
    if answer.status != 200 or not {AS_LINES, AS_CSV} & set(options):
        return answer
    rows = _predictions(answer.body.decode())
    if rows is None:
        return refusal(406, "a request in column form is answered in JSON only", request.id)
    if AS_CSV in options:
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        for row in rows:
            writer.writerow(_cells(row))
        text = written.getvalue()
    else:
        text = "".join(f"{row}\n" for row in rows)
    return dataclasses.replace(answer, body=text.encode())


def _predictions(text: str) -> list[str] | None:
    """Return the text of each prediction; None for an answer in column form."""
    for raw, start, end in members(text)[1]:
        if json.loads(raw) == "predictions":
            listed = text[start:end]
            return [listed[begin:stop] for _, begin, stop in members(listed)[1]]
    return None


def _cells(row: str) -> Iterator[str]:
    if row == "null":
        return
    if not row.startswith("{"):
        yield _cell(row)
        return
    for _, start, end in members(row)[1]:
        yield _cell(row[start:end])


def _cell(text: str) -> str:
    """Return a JSON value as a cell: a text without its quotes, a null empty, a list as JSON."""
    return json.loads(text) if text.startswith('"') else "" if text == "null" else text
