"""Messages about mistakes in a job file or on a command line."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pydantic

from beam_score.pipeline.printing.terminal import cut
from beam_score.transforms.common.names import near_miss


class JobError(ValueError):
    """The job file or the command line has mistakes. `problems` has one message per mistake."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def together(*checks: Callable[[], Any]) -> list[Any]:
    """Return what checks return, each of which may raise JobError. Raises JobError with the problems of all."""
    results, problems = [], list[str]()
    for check in checks:
        try:
            results.append(check())
        except JobError as error:
            problems += error.problems
    if problems:
        raise JobError(problems)
    return results


def sentences(
    error: pydantic.ValidationError, keys_at: Callable[[Sequence[str]], Sequence[str]]
) -> Iterator[tuple[list[str], str]]:
    """Yield the key and a message for each problem, once.

    Args:
      keys_at: returns the known keys of a section, given the section's key.
    """
    unknown, missing, no_text = {}, [], {}
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for detail in error.errors(include_url=False)[:_MOST]:
        # pydantic adds the branch of a union to the location; the user did not write it
        loc = detail["loc"]
        named_by_user = len(loc) > 1 and loc[0] in ("columns", "inputs", "outputs")
        where = tuple(str(p) for at, p in enumerate(loc) if not _is_branch(p) or (at == 1 and named_by_user))
        if detail["type"] == "invalid_key":
            no_text[where] = detail["input"]
        elif where[-1:] == ("[key]",):
            no_text[where[:-1]] = detail["input"]
        elif detail["type"] == "extra_forbidden":
            unknown[where] = near_miss(where[-1], keys_at(where[:-1]))
        elif detail["type"] == "missing":
            missing.append(where)
        else:
            found.setdefault(where, []).append(detail)
    for where, hint in unknown.items():
        yield list(where), f"unknown key {brief('.'.join(where))}{hint}"
    for where, key in no_text.items():
        within = f"{'.'.join(where[:-1])}: " if where[:-1] else ""
        yield list(where), f"{within}found the key {brief(key)}, expected text: write it in quotes"
    for where in missing:
        key, name = ".".join(where), where[-1]
        if name.isdigit():
            yield (
                list(where),
                f"{key.rpartition('.')[0]}: expected two bounds, for example [0, 150]; null leaves a bound open",
            )
            continue
        # A key is not missing if it is only misspelt.
        if not any(repr(name) in hint and k[:-1] == where[:-1] for k, hint in unknown.items()):
            yield list(where), f"key {key!r} is missing"
    for where, details in found.items():
        yield list(where), _wrong_value(".".join(where), details)


def _wrong_value(key: str, details: Sequence[Mapping[str, Any]]) -> str:
    """Return the message about one value; for a union, it names every type that the union accepts."""
    own = [d for d in details if d["type"] == "value_error"]
    if own:
        told = (cut(str(d["ctx"]["error"]), _LONGEST) for d in own)
        return "; ".join(dict.fromkeys(f"{key}: {error}" if key else error for error in told))
    value = details[0]["input"]
    if key.startswith("inputs.") and value in ([], ()):
        return f"{key}: the list of columns is empty: choose the columns that make up this input"
    expected, words = [], []
    for detail in details:
        if detail["type"] == "literal_error":
            expected.append(detail["ctx"]["expected"])
            words += re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        else:
            message = detail["msg"].partition(",")[0].removeprefix("Input should be ")
            kind = _KINDS.get(detail["type"])
            expected.append(kind.format_map(detail.get("ctx", {})) if kind else message[:1].lower() + message[1:])
            if detail["type"] == "model_type" and key.startswith("columns."):
                expected[-1] += ", for example {dtype: float32}"
    hint = near_miss(value, words) if isinstance(value, str) else ""
    return f"{key}: found {brief(value)}, expected {' or '.join(dict.fromkeys(expected))}{hint}"


def brief(value: Any) -> str:
    """Return the `repr` of a value, cut if it is long."""
    return cut(_BRIEF.repr(value), _LONGEST)


_MOST = 200  # errors that are reported
_LONGEST = 400

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 4
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = _BRIEF.maxset = 10
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 200


_KINDS = {
    "tuple_type": "a list, in brackets",
    "model_type": "keys and values",
    "mapping_type": "keys and values",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_too_short": "text that is not empty",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""Types in words, where pydantic's messages use the names of Python's types."""


def _is_branch(part: Any) -> bool:
    return isinstance(part, str) and (
        part.startswith(("literal[", "tuple[", "function-", "lax-or-strict", "constrained-"))
        or part in ("int", "float", "str", "Standardize")
    )
