"""Redaction of exceptions to their type and location. The message of a model's or a user function's exception may
contain values of a row in any form, so its text is left out unless the job requests it."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping

MAX_CHARS = 500

# The lines that TensorFlow adds around an op's message, and the graph nodes after it.
_FRAME = re.compile(r"^(Graph execution error:|Detected at node .*|<stack traces unavailable>|\s*File \".*|)$")
_NODE = re.compile(r"\{\{node ([^}\s]*)\}\}")
_PLACE = re.compile(r"\[\[\{\{node [^}]*\}\}\]\]|\[\[[^\]]*\]\]|\[Op:[^\]]*\]|name:\s*$")
_SAID = ", it said: "
_EXPECTED = ", expected "
# From the first quote to the last: a value may contain quotes.
_QUOTED = re.compile(r"""['"].*['"]""", re.DOTALL)


def model_error(error: Exception, nodes: Mapping[str, str], full: bool = False) -> str:
    """Return the type of a model's error, and the op that raised it: `InvalidArgumentError in op Assert (node
    guard/Assert)`.

    Args:
      nodes: of the model's graph, name to op. Other names in the error's text are not repeated: they may be values.
      full: whether to append the text of the message, cut, as the job requests by `rejects.model_messages: full`.
    """
    own = type(error).__module__.startswith("beam_score.transforms.")
    if own and not hasattr(error, "error_code"):  # our own messages contain no values
        return f"{type(error).__name__}: {error}"
    text = str(getattr(error, "message", None) or error)
    told = type(error).__name__
    if node := next((name for found in _NODE.finditer(text) if (name := _known(found[1], nodes))), None):
        told += f" in op {nodes[node]} (node {node})"
    if full:
        lines = [line for line in text.splitlines() if not _FRAME.match(line)]
        told += _SAID + " ".join(_PLACE.sub(" ", " ".join(lines)).split())[:MAX_CHARS]
    return told


def _known(node: str, nodes: Mapping[str, str]) -> str | None:
    """Return the graph node that a path names: nodes of functions are prefixed with the names of their callers."""
    parts = node.split("/")
    return next((name for at in range(len(parts)) if (name := "/".join(parts[at:])) in nodes), None)


def raised_at(error: Exception, module: str) -> str | None:
    """Return where an exception left the user's code, or else where it was raised, as `features.py:12`.

    Args:
      module: of the function that was called. Its package is the user's code.
    """
    package, last, own = module.partition(".")[0], None, None
    trace: types.TracebackType | None = error.__traceback__
    while trace is not None:
        last = trace
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == package:
            own = trace
        trace = trace.tb_next
    found = own or last
    return None if found is None else f"{found.tb_frame.f_code.co_filename}:{found.tb_lineno}"


def without_values(message: str) -> str:
    """Remove the values from a dead letter's message, for logs: keep only the expectation, if the message has one;
    otherwise remove quoted text and the model's own message."""
    message = message.partition(_SAID)[0]
    _, comma, expected = message.rpartition(_EXPECTED)
    if comma:
        return comma.removeprefix(", ") + expected
    message = message.partition(", found ")[0]
    return _QUOTED.sub("...", message)
