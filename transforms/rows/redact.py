"""What may be told of an exception: its kind and where it was raised. A message that a model, or a user's function,
has made may hold values of a row in any form, so its text is left out unless the job asks for it."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping

MAX_CHARS = 500

# TensorFlow's frame around an op's message, and the nodes of the graph that follow it.
_FRAME = re.compile(r"^(Graph execution error:|Detected at node .*|<stack traces unavailable>|\s*File \".*|)$")
_NODE = re.compile(r"\{\{node ([^}\s]*)\}\}")
_PLACE = re.compile(r"\[\[\{\{node [^}]*\}\}\]\]|\[\[[^\]]*\]\]|\[Op:[^\]]*\]|name:\s*$")
_SAID = ", it said: "
_EXPECTED = ", expected "
# From the first quote to the last: a value may hold quotes of its own.
_QUOTED = re.compile(r"""['"].*['"]""", re.DOTALL)


def model_error(error: Exception, nodes: Mapping[str, str], full: bool = False) -> str:
    """`InvalidArgumentError in op Assert (node guard/Assert)`: the error's code, and the op that raised it.

    Args:
      nodes: of the model's graph, name to op. A name in the error's text that is none of these is not repeated: it
        may be a value.
      full: whether the text of the message follows, cut: the job asks for it (`rejects.model_messages: full`).
    """
    if type(error).__module__.startswith("beam_score.transforms."):  # our own words, which hold no value
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
    """The node of a graph that a path names: nodes of functions have the names of their callers before their own."""
    parts = node.split("/")
    return next((name for at in range(len(parts)) if (name := "/".join(parts[at:])) in nodes), None)


def raised_at(error: Exception, module: str) -> str | None:
    """`features.py:12`: where an exception left the user's own code; else, where it was raised.

    Args:
      module: of the function that was called. Its package is the user's own.
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
    """A dead letter's message, which may quote what was found, as it may stand in a log: what was
    expected, where it says so; else all but what is in quotes, and what a model said."""
    message = message.partition(_SAID)[0]
    _, comma, expected = message.rpartition(_EXPECTED)
    if comma:
        return comma.removeprefix(", ") + expected
    message = message.partition(", found ")[0]
    return _QUOTED.sub("...", message)
