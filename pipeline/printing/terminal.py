"""Output to terminals, logs and pipes; the only module of this package that prints.

File names, column names, values and a model's names come from data. Printed unescaped, they could move the cursor,
change colours, reverse the order of characters, or look like further lines of a message.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

import rich.console
import rich.markup
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_CONTROL = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"  # direction marks and overrides, line and paragraph separators
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # byte order mark, annotations, invisible tags
    "\ud800-\udfff"  # surrogates: bytes of a file name that are not UTF-8
)
_UNPRINTABLE = re.compile(f"[{_CONTROL}]")
_UNPRINTABLE_IN_LINES = re.compile(f"(?!\n)[{_CONTROL}]")

LONGEST_MESSAGE = 4_000
"""Characters of one message; longer messages are cut."""

MOST_MESSAGES = 100
"""Messages of one error; the others are counted."""

_UNBOUNDED = 1 << 16  # columns: without a terminal no line is wrapped or cut


def printable(text: object) -> str:
    """Return a text as one line, with control characters escaped as in Python: `\\x1b`, `\\u202e`, `\\n`."""
    return _UNPRINTABLE.sub(_escaped, str(text))


def printable_lines(text: str) -> str:
    """Escape control characters like `printable`, but keep line ends."""
    return _UNPRINTABLE_IN_LINES.sub(_escaped, text)


def escape(text: object) -> str:
    """Escape text from data for rich's markup."""
    return rich.markup.escape(printable(text))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[found[0]]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cut(text: str, most: int = LONGEST_MESSAGE) -> str:
    """Cut a text to `most` characters, and append the number of characters left out."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most:,} more characters)"


_WHERE_NONE_IS_TOLD = 80


class Console(rich.console.Console):
    """A rich console that escapes control characters in everything that it prints.

    Without a terminal, lines are neither wrapped nor cut. Line ends are kept: text from data goes through `escape`,
    which escapes them as well.
    """

    def __init__(self, *, stderr: bool = False, **options: Any):
        if _own is not None:
            options.setdefault("file", _own[stderr])
        super().__init__(stderr=stderr, **{"emoji": False, "highlight": False, **options})
        if not self.is_terminal and "width" not in options:
            self.width = _UNBOUNDED
        elif self.is_terminal and _own is not None and "width" not in options:
            with contextlib.suppress(OSError, ValueError):  # rich looks at descriptors 0 to 2
                self.width = os.get_terminal_size(self.file.fileno()).columns or _WHERE_NONE_IS_TOLD

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string. The text is escaped first, because escaping changes the width of a cell."""
        return super().render_str(printable_lines(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything, including text that is not a `str`."""
        for segment in super().render(renderable, options):
            if segment.control or not _UNPRINTABLE_IN_LINES.search(segment.text):
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


def put(text: str, flush: bool = False) -> None:
    """Write lines for programs to standard output: JSON, YAML, a line of status."""
    print(printable_lines(text), flush=flush, file=_own and _own[0])


def say(problems: Iterable[str]) -> None:
    """Write errors to standard error, each on a line of its own, long ones cut."""
    console = Console(stderr=True, soft_wrap=True)
    problems = list(problems)
    for problem in problems[:MOST_MESSAGES]:
        console.print(f"[bold red]error:[/] {escape(cut(problem))}", highlight=False)
    if len(problems) > MOST_MESSAGES:
        console.print(f"[bold red]error:[/] {len(problems) - MOST_MESSAGES:,} more like these", highlight=False)


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return (_own[0] if _own else sys.stdout).isatty()


def note(text: str) -> None:
    """Write a note, which is not an error, to standard error."""
    Console(stderr=True, soft_wrap=True).print(f"[dim]note: {escape(text)}[/]")


def begun(text: str) -> None:
    """Show on a terminal that a command has begun, before it imports what it needs."""
    console = Console(stderr=True)
    if console.is_terminal:
        console.print(f"[dim]{escape(text)}[/]")


def use(out: TextIO, err: TextIO) -> None:
    """Send the command's output to these streams instead of `sys.stdout` and `sys.stderr`."""
    global _own
    _own = out, err


def flush() -> None:
    """Flush the command's streams and the standard streams; errors are ignored."""
    for stream in (*(_own or ()), sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


_own: tuple[TextIO, TextIO] | None = None
"""The command's standard output and error, if `sys.stdout` and `sys.stderr` are redirected."""
