"""The text of a job file: YAML parsed within limits, and the line of every key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.printing.terminal import cut

LARGEST_BYTES = 16_000_000
MOST_VALUES = 500_000
"""Values in a job file; values repeated by aliases count each time."""

DEEPEST = 50
LONGEST_NUMBER = 1_000
"""Characters of one number: the time to parse an integer grows with the square of its length."""

_LONGEST_MESSAGE = 500


class _Composer(Composer):
    """Stops at the first node that is nested too deep: parsing time grows with the square of the depth."""

    def compose_node(self, parent: Node | None, index: Any) -> Any:
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEEPEST:
            raise RecursionError
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Constructor(SafeConstructor):
    """Turns Python's errors about a value (a date that does not exist, a number too long) into errors with a line."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            is_number = isinstance(node, ScalarNode) and (node.tag or "").endswith((":int", ":float"))
            if is_number and len(node.value) > LONGEST_NUMBER:
                raise ValueError(f"a number of {len(node.value):,} characters, expected at most {LONGEST_NUMBER:,}")
            return super().construct_object(node, deep)
        except YAMLError:
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
            raise ConstructorError(None, None, f"not a YAML value: {error}", node.start_mark) from None


class JobText:
    """The settings in a job file's text, and their lines.

    Attributes:
      path: of the file, for messages.
      settings: keys and values as plain data.
    """

    def __init__(self, path: str, text: str):
        self.path = path
        self._node, self.settings = _read(path, text)

    def line(self, key: Sequence[str]) -> int | None:
        """Return the 1-based line of a key, or of its innermost parent in the file; None if the file has neither."""
        node, found = self._node, None
        for part in key:
            inner = _child(node, part)
            if inner is None:
                break
            found, node = inner
        return found

    def holds(self, key: Sequence[str]) -> bool:
        """Return whether the file has a key."""
        node = self._node
        for part in key:
            if (inner := _child(node, part)) is None:
                return False
            node = inner[1]
        return True


def parse_value(text: str, what: str) -> Any:
    """Parse one YAML value.

    Args:
      what: the name of the value, for messages.

    Raises:
      JobError: if the text is not valid YAML, or exceeds the limits.
    """
    return _read(what, text)[1]


def _child(node: Node | None, part: str) -> tuple[int, Node] | None:
    """Return the line and the value of a key, or of an item by its index."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if str(key.value) == part:
                return key.start_mark.line + 1, value
    elif isinstance(node, SequenceNode) and part.isdecimal() and int(part) < len(node.value):
        value = node.value[int(part)]
        return value.start_mark.line + 1, value
    return None


def _read(path: str, text: str) -> tuple[Node | None, Any]:
    """Return the root node, for the lines, and the settings."""
    if len(text) > LARGEST_BYTES:
        raise JobError([f"{path} has {len(text):,} characters, expected at most {LARGEST_BYTES:,}: is it a job file?"])
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer, yaml.Constructor = _Composer, _Constructor
    try:
        node = yaml.compose(text)
        if node is None:
            return None, None
        _check_size(node)
        return node, yaml.constructor.construct_document(node)
    except RecursionError:
        raise JobError([f"{path}: nested more than {DEEPEST} levels deep, or a value that contains itself"]) from None
    except (YAMLError, ValueError, TypeError) as error:
        raise JobError([_not_yaml(path, error)]) from None


def _check_size(root: Node) -> None:
    """Raise ValueError for too many values, RecursionError for a node that is nested too deep or contains itself."""
    sizes: dict[int, int] = {}  # by node id: the number of values in it; an alias is the same node

    def size(node: Node, depth: int) -> int:
        if depth > DEEPEST:
            raise RecursionError
        if id(node) not in sizes:
            inner = [n for pair in node.value for n in pair] if isinstance(node, MappingNode) else node.value
            found = 1 + (len(node.value) // 64 if isinstance(node, ScalarNode) else 0)
            if not isinstance(node, ScalarNode):
                found += sum(size(child, depth + 1) for child in inner)
            if found > MOST_VALUES:
                raise ValueError(f"more than {MOST_VALUES:,} values, including values repeated by aliases")
            sizes[id(node)] = found
        return sizes[id(node)]

    size(root, 0)


def _not_yaml(path: str, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = ", ".join(part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    line = "" if mark is None else f":{mark.line + 1}"
    return f"{path}{line}: not valid YAML: {cut(' '.join((said or str(error)).split()), _LONGEST_MESSAGE)}"
