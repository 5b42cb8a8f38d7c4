"""Names and values from data reach a terminal, a log and a pipe escaped: they cannot move the cursor, change colours,
turn the order of characters around, or look like another line."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys

import jobs
import pytest
from rich import box
from rich.table import Table
from rich.text import Text

from beam_score.pipeline.printing.terminal import LONGEST_MESSAGE, Console, cut, escape, printable
from beam_score.transforms.common.units import counted

EVIL = "a\x1b[2Jb\x9b31mc\x07\x7f\u202egnp\u2028x\u2066y\r\nz\udcff\ufeff"
ESCAPED = r"a\x1b[2Jb\x9b31mc\x07\x7f\u202egnp\u2028x\u2066y\r\nz\udcff\ufeff"
RAW = set(EVIL) - set("abcgnpxyz[2J31m")


def test_each_character_is_escaped_as_python_writes_it():
    assert printable(EVIL) == ESCAPED
    assert printable("\U000e0041 é 日本 👩‍👩‍👧 [red]") == "\\U000e0041 é 日本 👩‍👩‍👧 [red]"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("way", ["text", "Text", "cell", "cell of Text", "forgotten"])
def test_whatever_is_printed_by_whatever_way(terminal, way):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system=None, width=500)
    table = Table(box=box.SIMPLE)
    table.add_column("c")
    if way == "text":
        console.print(f"[bold]name[/] {escape(EVIL + '[red]:smile:')}")
    elif way == "Text":
        console.print(Text(EVIL))
    elif way == "forgotten":
        console.print(f"name {EVIL}")
    else:
        table.add_row(escape(EVIL + "[red]:smile:") if way == "cell" else Text(EVIL))
        console.print(table)
    said = out.getvalue()
    assert not (RAW - {"\n"}) & set(said)
    assert r"\x1b[2Jb" in said
    if way in ("text", "cell"):
        assert ESCAPED + "[red]:smile:" in said, "markup of data is data"


def test_off_a_terminal_no_line_is_wrapped_or_cut():
    out = io.StringIO()
    table = Table(box=box.SIMPLE)
    table.add_column("c")
    table.add_row("word " * 400)
    Console(file=out).print(table)
    assert "word " * 399 + "word" in out.getvalue()
    out = io.StringIO()
    Console(file=out).print("word " * 400)
    assert out.getvalue() == "word " * 400 + "\n"


def test_a_log_has_no_line_that_data_made(capsys):
    code = (
        "import logging\n"
        "from beam_score.pipeline.process import logs\n"
        "logs.set_up('info', {form!r})\n"
        "log = logging.getLogger('beam_score.x')\n"
        "log.warning('found %s', {evil!r})\n"
        "try:\n    raise ValueError({evil!r})\n"
        "except ValueError:\n    log.warning('raised', exc_info=True)\n"
    )
    for form in ("text", "json"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(form=form, evil=EVIL)], capture_output=True, env=jobs.environment()
        )
        assert done.returncode == 0, done.stderr
        said = done.stderr.decode()
        assert not (RAW - {"\n"}) & set(said)
        assert said.count("found a") == 1 and said.splitlines()[0].count("gnp") == 1
        if form == "json":
            assert json.loads(said.splitlines()[0])["event"] == f"found {EVIL}"
        else:
            assert f"found {ESCAPED}" in said


def test_a_message_is_one_line_and_is_cut():
    code = f"from beam_score.pipeline.printing.terminal import say\nsay([{EVIL!r}, 'x' * 10**6] + ['y'] * 1000)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=jobs.environment())
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: {ESCAPED}"
    assert lines[1] == f"error: {cut('x' * 10**6)}" and len(lines[1]) < LONGEST_MESSAGE + 100
    assert len(lines) == 101 and lines[-1] == "error: 902 more like these"


def test_nothing_is_printed_but_by_the_one_module():
    """So none is forgotten: rich's own console and escape, and print, are used in one module only."""
    found = []
    for package in ("pipeline", "transforms", "runners"):
        for path in sorted((jobs.ROOT / package).glob("*.py")):
            if path.name == "terminal.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module in ("rich.console", "rich.markup"):
                    found.append(f"{path.name}:{node.lineno} imports {node.module}")
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                    found.append(f"{path.name}:{node.lineno} prints")
    assert found == []


def test_one_of_a_thing_is_no_plural():
    assert [counted(n, "file") for n in (0, 1, 2, 2000)] == ["0 files", "1 file", "2 files", "2,000 files"]
    assert counted(2, "split of a day", "splits of a day") == "2 splits of a day"
