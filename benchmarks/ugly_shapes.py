"""Inputs and outputs of extreme shapes: the peak memory of a run, over all its processes.

    python benchmarks/ugly_shapes.py --mb 200 --memory 2GB

Each shape is a separate run, over `--mb` megabytes of input (of outputs, for wide outputs). `VmHWM` of each process of
the run is read from /proc until it ends; the peak is their sum. The first shape, a single row, is the baseline. Prints
a line of JSON per shape.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = pathlib.Path(__file__).parent.parent
_MB = 1_000_000


class Shape(NamedTuple):
    """An input or output shape.

    Attributes:
      model: one of `MODELS`.
      write: writes the input, given a folder and megabytes.
      sections: of the job file.
    """

    model: str
    write: Callable[[pathlib.Path, float], None]
    sections: dict[str, Any]


def _text(line: str, name: str = "data.csv", header: str = "x\n") -> Callable[[pathlib.Path, float], None]:
    def write(folder: pathlib.Path, mb: float) -> None:
        block = line.encode() * max(1, _MB // len(line))
        with open(folder / name, "wb") as file:
            file.write(header.encode())
            file.writelines(_times(block, mb))

    return write


def _times(block: bytes, mb: float) -> Iterator[bytes]:
    return (block for _ in range(max(1, round(mb * _MB / len(block)))))


def _one_row(folder: pathlib.Path, mb: float) -> None:
    (folder / "data.csv").write_text("x\n1\n")


def _gzip(folder: pathlib.Path, mb: float) -> None:
    with gzip.open(folder / "data.csv.gz", "wb") as file:
        file.write(b"x\n")
        file.writelines(_times(b"a\n" * (_MB // 2), mb))


def _rows_of_a_megabyte(folder: pathlib.Path, mb: float) -> None:
    (folder / "data.csv").write_text("x\n" + "1\n" * max(1, int(mb)))


def _lists(folder: pathlib.Path, mb: float) -> None:
    """Write rows of 10 numbers, with one row of 10,000 numbers after every 20,000 rows."""
    short, long = json.dumps({"x": [1] * 10}), json.dumps({"x": [1] * 10_000})
    block = ((short + "\n") * 20_000 + long + "\n").encode()
    with open(folder / "data.jsonl", "wb") as file:
        file.writelines(_times(block, mb))


_ONE = {"columns": {"x": {"dtype": "float32"}}}
_ALL = {"rejects": {"budget": "100%"}}
_HUNDRED = {f"c{i}": {"dtype": "float32"} for i in range(100)}

SHAPES = {
    "a single row": Shape("echo", _one_row, _ONE),
    "clean rows": Shape("echo", _text("1.5\n"), _ONE),
    "a wrong type in every row": Shape("echo", _text("abcdefghijklmnopqrstuvwxyz\n"), {**_ONE, **_ALL}),
    "a wrong delimiter": Shape("echo", _text("1;2;3,5\n"), {**_ONE, **_ALL}),
    "rows of a byte, all bad": Shape("echo", _text("a\n"), {**_ONE, **_ALL}),
    "the same in gzip": Shape("echo", _gzip, {**_ONE, **_ALL}),
    "100 bad columns a row": Shape(
        "echo",
        _text(",".join("a" * 100) + "\n", header=",".join(_HUNDRED) + "\n"),
        {"columns": _HUNDRED, "inputs": {"x": {"column": "c0"}}, **_ALL},
    ),
    "records of 5 MB": Shape("echo", _text('1,"' + "y" * 5_000_000 + '"\n', header="x,y\n"), _ONE),
    "outputs of 1 MiB a row": Shape("wide", _rows_of_a_megabyte, _ONE),
    "the same as JSON Lines": Shape("wide", _rows_of_a_megabyte, {**_ONE, "output": {"format": "jsonl"}}),
    "outputs of 1 MiB, of open shape": Shape("wide_open", _rows_of_a_megabyte, _ONE),
    "a long row among short ones, padded": Shape(
        "doubled", _lists, {"columns": {"x": {"dtype": "float32", "shape": [None]}}, "inputs": {"x": {"pad": 0}}}
    ),
}


def save_models(folder: pathlib.Path) -> None:
    """Save the models of the shapes, with one input `x` each."""
    import tensorflow as tf

    def save(name: str, shape: list[int | None], call: Callable) -> None:
        module = tf.Module()
        module.serve = tf.function(call, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")])
        tf.saved_model.save(module, str(folder / name), signatures={"serving_default": module.serve})

    width = (1 << 20) // 4
    save("echo", [None], lambda x: {"y": tf.identity(x)})
    save("wide", [None], lambda x: {"y": tf.tile(x[:, None], [1, width])})
    save(
        "wide_open", [None], lambda x: {"y": tf.tile(x[:, None], [1, width + tf.cast(tf.reduce_min(x) * 0, tf.int32)])}
    )
    save("doubled", [None, None], lambda x: {"y": 2 * x})


def run(shape: Shape, models: pathlib.Path, mb: float, memory: str) -> dict[str, Any]:
    """Run one shape. Returns its resource use."""
    with tempfile.TemporaryDirectory(prefix="ugly-") as name:
        folder = pathlib.Path(name)
        (folder / "data").mkdir()
        shape.write(folder / "data", mb)
        job = {
            "input": {"files": str(folder / "data" / "*")},
            "model": {"path": str(models / shape.model)},
            "engine": {"memory": memory, "workers": 2},
            **shape.sections,
        }
        job["output"] = {"path": str(folder / "out"), **shape.sections.get("output", {})}
        (folder / "job.yaml").write_text(json.dumps(job))
        command = [
            sys.executable,
            "-c",
            "from beam_score.pipeline.cli import main; main()",
            "run",
            str(folder / "job.yaml"),
            "--json",
        ]
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
        )
        peaks: dict[int, int] = {}
        while process.poll() is None:
            for pid in _tree(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), _peak_bytes(pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        said = process.stderr.read()
        records = [p for n in ("manifest.json", "failed.json") if (p := folder / "out" / n).exists()]
        counts = json.loads(records[0].read_bytes())["counts"] if records else {"error": said[-500:]}
        return {
            "input_mb": round(sum(p.stat().st_size for p in (folder / "data").iterdir()) / _MB, 1),
            "peak_mb": round(sum(peaks.values()) / _MB),
            "seconds": round(seconds, 1),
            "code": process.returncode,
            **{n: c for n, c in counts.items() if n in ("predicted", "rejected", "error")},
        }


def _tree(pid: int) -> list[int]:
    """Return the ids of a process and of its descendants."""
    found = [pid]
    for one in found:
        try:
            for children in pathlib.Path(f"/proc/{one}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        except OSError:  # the process has ended
            continue
    return found


def _peak_bytes(pid: int) -> int:
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=200, help="megabytes of input")
    parser.add_argument("--memory", default="2GB", help="engine.memory")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), help="names, all unless given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ugly-models-") as models:
        save_models(pathlib.Path(models))
        for name in args.shapes:
            print(
                json.dumps({"shape": name, **run(SHAPES[name], pathlib.Path(models), args.mb, args.memory)}), flush=True
            )


if __name__ == "__main__":
    main()
