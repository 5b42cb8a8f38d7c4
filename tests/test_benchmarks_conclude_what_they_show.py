"""`make bench` compares only contenders with the same predictions, counts all their processes, and concludes nothing
from noise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

from compare import compare, compare_predictions, conclude, predictions, tables  # noqa: E402
from contenders import CONTENDERS, SUITES, Bench  # noqa: E402
from machine import describe  # noqa: E402
from processes import run_process  # noqa: E402


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.2, 1.3, 1.25], "1.25 (1.2 to 1.3): faster"),
        ([0.8, 0.7, 0.75], "0.75 (0.7 to 0.8): slower"),
        ([0.9, 1.0, 1.2], "1 (0.9 to 1.2): no conclusion; needs below 0.83 or above 1.11"),
        ([1.0, 1.3, 1.3], "1.3 (1 to 1.3): no conclusion; needs below 1.00 or above 1.30"),
        ([1.5, 1.5], "1.5 (1.5 to 1.5): no conclusion from fewer than 3 rounds"),
    ],
)
def test_a_range_that_spans_one_is_no_conclusion(ratios, expected):
    assert conclude(ratios, "faster", "slower") == expected


def test_contenders_with_other_predictions_are_refused():
    expected = pl.DataFrame({"id": [1, 2], "prediction": [0.25, 0.5]})
    assert compare_predictions(expected, expected) == ""
    other = expected.with_columns(prediction=pl.lit(0.5))
    assert compare_predictions(other, expected) == "a prediction differs by 0.25"
    assert compare_predictions(expected[:1], expected) == "other rows: 1, and 2 are expected"
    missing = expected.with_columns(prediction=pl.Series([None, 0.5]))
    assert compare_predictions(missing, expected) == "a prediction is null or not finite"


class Scripted:
    """A contender that writes predictions by a script of Python."""

    bad = False

    def __init__(self, script):
        self.script = script

    def command(self, bench, out):
        return [sys.executable, "-c", f"import pathlib, sys; out = pathlib.Path(sys.argv[1]); {self.script}", out]

    def read(self, stdout):
        return {}


def test_a_contender_that_fails_or_predicts_otherwise_leaves_the_comparison(tmp_path, monkeypatch):
    write = """out.mkdir(); (out / "a.jsonl").write_text('{"id": 1, "prediction": %s}')"""
    scripts = {"right": write % 0.5, "too": write % 0.5, "wrong": write % 0.7, "broken": "sys.exit('no such thing')"}
    for name, script in scripts.items():
        monkeypatch.setitem(CONTENDERS, name, Scripted(script))
    lines = []
    compare(("right", "wrong", "broken", "too"), Bench(tmp_path, 1, 1, 1, "small"), 3, lines.append)
    text = "\n".join(lines)
    assert "wrong is refused: a prediction differs by" in text
    assert "broken is left out: exit 1" in text
    assert "no such thing" in text
    assert "| right / too | " in text
    assert "| wrong |" not in text
    with pytest.raises(RuntimeError, match="no such thing"):
        compare(("broken", "right"), Bench(tmp_path, 1, 1, 1, "small"), 3, lines.append)


def test_predictions_are_found_in_any_layout(tmp_path):
    rows = pl.DataFrame({"id": [2, 1], "prediction": [0.5, 0.25]})
    for folder in ("ours/predictions", "ours/rejected", "peer", "lines"):
        (tmp_path / folder).mkdir(parents=True)
    rows.write_parquet(tmp_path / "ours/predictions/a.parquet")
    (tmp_path / "ours/rejected/a.jsonl").write_text('{"row": 3}\n')
    rows[:1].write_parquet(tmp_path / "peer/a.parquet")
    rows[1:].write_parquet(tmp_path / "peer/b.parquet")
    rows.write_ndjson(tmp_path / "lines/a.jsonl")
    for name in ("ours", "peer", "lines"):
        assert predictions(tmp_path / name).rows() == [(1, 0.25), (2, 0.5)]


def test_one_clock_is_used_for_all_contenders_of_a_group():
    whole = {"rows": 1_000_000, "whole_seconds": 10.0, "whole_cpu_seconds": 12.0, "peak_mb": 500.0}
    scoring = {"seconds": 2.0, "cpu_seconds": 3.0}
    with_own = "\n".join(tables({"a": [whole | scoring]}))
    without = "\n".join(tables({"a": [whole | scoring], "b": [whole]}))
    assert "first read to last write" in with_own
    assert "| a | 2 (2 to 2) | 0.5 (0.5 to 0.5) | 3 (3 to 3) |" in with_own
    assert "start of the command to its exit" in without
    assert "| a | 10 (10 to 10) | 0.1 (0.1 to 0.1) | 12 (12 to 12) |" in without


def test_orphans_and_their_processor_time_are_counted():
    work = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    ended = run_process(["bash", "-c", f'echo started; {sys.executable} -c "{work}" & disown'])
    assert ended.stdout == "started\n"
    assert ended.whole_cpu_seconds > 0.5


def test_a_command_that_fails_is_reported_with_its_message():
    with pytest.raises(RuntimeError, match=r"(?s)exit 3: .*no such thing"):
        run_process(["bash", "-c", "echo no such thing >&2; exit 3"])


def test_suites_name_contenders():
    for groups in SUITES.values():
        for group in groups:
            assert set(group.contenders) <= set(CONTENDERS)


def test_the_machine_is_described():
    for part in ("cores of", "caches", "GiB of memory", "load average"):
        assert part in describe()


def test_peers_pin_what_they_install():
    for requirements in BENCHMARKS.glob("peers/*/requirements.txt"):
        pinned = [line for line in requirements.read_text().splitlines() if not line.startswith("#")]
        assert all("==" in line for line in pinned), requirements
        assert any(line.startswith("tensorflow==") for line in pinned)


@pytest.mark.parametrize("suite", ["strings", "small"])
def test_a_suite_runs_to_its_end(tmp_path, suite):
    command = [sys.executable, BENCHMARKS / "compare.py", suite, "--rows", "60", "--shards", "2", "--pairs", "1"]
    ended = subprocess.run([*command, "--folder", tmp_path], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert "refused" not in ended.stdout
    assert "| ours / " in ended.stdout
