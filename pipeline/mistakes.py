"""What is wrong with a job file or a command line, in sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pydantic

from transforms.names import near_miss


class JobError(ValueError):
    """The job file or the command line is wrong. `problems` has a sentence for each thing found."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def sentences(error: pydantic.ValidationError, keys_at: Callable[[Sequence[str]], Sequence[str]]) -> Iterator[str]:
    """A sentence for each thing that is wrong, once.

    Args:
      keys_at: told a place in the job file, gives the keys that are known there.
    """
    unknown, missing, found = {}, [], {}
    for detail in error.errors(include_url=False):
        # pydantic names the branch of a union tried, in a location that no person wrote
        where = [str(p) for p in detail["loc"] if not _is_branch(p)]
        key = ".".join(where)
        if detail["type"] == "extra_forbidden":
            unknown[key] = near_miss(where[-1], keys_at(where[:-1]))
        elif detail["type"] == "missing":
            missing.append((key, where[-1]))
        else:
            found.setdefault(key, []).append(detail)
    for key, hint in unknown.items():
        yield f"unknown key {key!r}{hint}"
    for key, name in missing:
        if name.isdigit():
            yield f"{key.rpartition('.')[0]}: expected two ends, as [0, 150]; null leaves one open"
            continue
        # Not where it is there, and misspelt.
        if not any(
            repr(name) in hint and k.rpartition(".")[0] == key.rpartition(".")[0] for k, hint in unknown.items()
        ):
            yield f"key {key!r} is missing"
    for key, details in found.items():
        yield _wrong_value(key, details)


def _wrong_value(key: str, details: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with one value; of a union, what each of its kinds would have been."""
    own = [d for d in details if d["type"] == "value_error"]
    if own:
        return "; ".join(dict.fromkeys(f"{key}: {d['ctx']['error']}" if key else str(d["ctx"]["error"]) for d in own))
    value = details[0]["input"]
    if key.startswith("inputs.") and value in ([], ()):
        return f"{key}: nothing is named yet: choose the columns that it is made of"
    expected, words = [], []
    for detail in details:
        if detail["type"] == "literal_error":
            expected.append(detail["ctx"]["expected"])
            words += re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        else:
            message = detail["msg"].partition(",")[0].removeprefix("Input should be ")
            expected.append(_KINDS.get(detail["type"], message[:1].lower() + message[1:]))
    hint = near_miss(value, words) if isinstance(value, str) else ""
    return f"{key}: found {value!r}, expected {' or '.join(dict.fromkeys(expected))}{hint}"


_KINDS = {
    "tuple_type": "a list, in brackets",
    "model_type": "keys and values, as {dtype: float32}",
    "mapping_type": "keys and values",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""What pydantic calls by the names of Python's types."""


def _is_branch(part: Any) -> bool:
    return isinstance(part, str) and (
        part.startswith(("literal[", "tuple[", "function-", "lax-or-strict"))
        or part in ("int", "float", "str", "Standardize")
    )
