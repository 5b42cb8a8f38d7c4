"""What `compare.py` runs: the contenders, and the groups of them that are compared."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from make_data import make_data
from peer_environments import python_of
from processes import run_process
from shapes import SHAPES, Shape

HERE = pathlib.Path(__file__).parent

PEER_ENVIRONMENT = {"PYTHONPATH": str(HERE), "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
"""The scripts of `peers/` import `people.py`, and nothing is reported to anyone."""

Measured = dict[str, Any]
"""Of one run: `rows`, and the fields of `Process`, of the whole command; `seconds` and `cpu_seconds`, from the first
read to the last write, of contenders that have a clock of their own."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """The settings that all contenders share.

    Attributes:
      folder: contains data sets, models, environments and outputs.
      rows: rows of a data set.
      shards: files of a data set.
      threads: worker threads of each contender.
      model: `small` or `large`, for the shape `people`; see `make_model.py`.
      settings: `key=value` of the job file, for beam-score only.
      shape: of the rows, one of `SHAPES`.
    """

    folder: pathlib.Path
    rows: int
    shards: int
    threads: int
    model: str
    settings: tuple[str, ...] = ()
    shape: str = "people"

    @property
    def of_shape(self) -> Shape:
        return SHAPES[self.shape]

    @property
    def model_name(self) -> str:
        return self.of_shape.model or self.model

    def data(self, format_: str, bad: float = 0.0) -> pathlib.Path:
        """Return a data set's folder; create the data set if it is missing."""
        shape = "" if self.shape == "people" else f"{self.shape}-"
        folder = self.folder / f"{shape}{format_}-{self.rows}x{self.shards}{BAD[bad]}"
        if not folder.exists():
            print(f"making {folder}", file=sys.stderr)
            unfinished = folder.with_name(folder.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make_data(unfinished, format_, self.rows, self.shards, bad, self.shape)
            unfinished.rename(folder)
        return folder

    def model_path(self) -> pathlib.Path:
        """Return a model's folder of versions; create the model if it is missing."""
        folder = self.folder / "models" / self.model_name
        if not (folder / "1" / "saved_model.pb").exists():
            command = [sys.executable, HERE / "make_model.py", "--name", self.model_name, folder / "1"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return folder

    def python_of(self, peer: str) -> pathlib.Path:
        """Return the Python of a peer's environment; create it, or create it again if its requirements changed."""
        return python_of(HERE / "peers" / peer / "requirements.txt", self.folder / "environments" / peer)


BAD = {0.0: "", 0.01: "-bad", 0.1: "-bad-10", 1.0: "-bad-all"}
"""Shares of bad rows, and how the name of their data set ends."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """A script that takes `people.parse_arguments`.

    Attributes:
      clock: whether the script ends with a line of JSON (`people.Clock.report`).
      environment: the folder of `peers/` whose requirements it needs, if not ours.
    """

    script: str
    options: tuple[str, ...] = ()
    input_format: str = "csv"
    takes_threads: bool = True
    clock: bool = True
    environment: str | None = None
    bad = 0.0

    def command(self, bench: Bench, out: pathlib.Path) -> list[object]:
        python = bench.python_of(self.environment) if self.environment else sys.executable
        pattern = bench.data(self.input_format) / f"*.{self.input_format}"
        threads = ["--threads", bench.threads] if self.takes_threads else []
        model = bench.model_path() / "1"
        return [python, HERE / self.script, pattern, "--model", model, "--out", out, *threads, *self.options]

    def read(self, stdout: str) -> Measured:
        return json.loads(stdout.splitlines()[-1]) if self.clock else {}


@dataclasses.dataclass(frozen=True)
class Ours:
    """`beam-score run` with all its features: validation, dead letters, receipts, commit."""

    input_format: str = "csv"
    output_format: str = "parquet"
    bad: float = 0.0
    checkout: pathlib.Path | None = None

    def command(self, bench: Bench, out: pathlib.Path) -> list[object]:
        """Return the command of the task; writes its job file next to its output."""
        job = out.with_suffix(".yaml")
        job.parent.mkdir(parents=True, exist_ok=True)
        job.write_text(json.dumps(self.job(bench, out), indent=2))  # JSON is valid YAML 1.2
        settings = [part for setting in bench.settings for part in ("--set", setting)]
        program = [sys.executable, "-m", "beam_score.pipeline.cli"]
        if self.checkout is not None:
            program = ["env", f"PYTHONPATH={self.checkout}", f"--chdir={self.checkout}", *program]
        return [*program, "run", job, "--json", *settings]

    def read(self, stdout: str) -> Measured:
        manifest = json.loads(stdout)
        return {
            "seconds": manifest["timings"]["first_read_to_last_receipt_s"],
            "cpu_seconds": manifest["launch_s"]["run_cpu"],
        }

    def job(self, bench: Bench, out: pathlib.Path) -> dict[str, Any]:
        """Return the peers' task as a job file."""
        return {
            "input": {"files": f"{bench.data(self.input_format, self.bad)}/*.{self.input_format}"},
            "model": {"path": str(bench.model_path()), "batch_rows": "auto"},
            "columns": {"id": {"dtype": "int64"}, **bench.of_shape.columns},
            "inputs": dict(bench.of_shape.inputs),
            "outputs": {"prediction": {}},
            "output": {"path": str(out), "format": self.output_format, "keep": ["id"]},
            "rejects": {"budget": "100%"},
            "engine": {"runner": "local", "workers": bench.threads},
        }


def score(contender: Ours | Peer, bench: Bench, out: pathlib.Path) -> Measured:
    """Run a contender in an empty output folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    environment = PEER_ENVIRONMENT if isinstance(contender, Peer) else {}
    process = run_process(contender.command(bench, out), environment)
    whole = dataclasses.asdict(process)
    return {"rows": bench.rows, **contender.read(whole.pop("stdout")), **whole}


CONTENDERS: dict[str, Ours | Peer] = {
    "ours": Ours(),
    "ours-jsonl": Ours("jsonl"),
    "ours-parquet": Ours("parquet"),
    "ours-tfrecord": Ours("tfrecord"),
    "ours-bad": Ours("csv", bad=0.01),
    "ours-bad-10": Ours("csv", bad=0.1),
    "ours-bad-all": Ours("csv", bad=1.0),
    "ours-jsonl-bad": Ours("jsonl", bad=0.01),
    "ours-parquet-bad": Ours("parquet", bad=0.01),
    "ours-tfrecord-bad": Ours("tfrecord", bad=0.01),
    "ours-to-jsonl": Ours(output_format="jsonl"),
    "hand-default": Peer("hand_loop.py", ("--form", "default")),
    "hand-tuned": Peer("hand_loop.py", ("--form", "tuned")),
    "hand-tuned-typed": Peer("hand_loop.py", ("--form", "tuned", "--reader", "typed")),
    "hand-tuned-no-xla": Peer("hand_loop.py", ("--form", "tuned", "--no-xla")),
    "hand-jsonl": Peer("hand_loop.py", ("--form", "tuned"), "jsonl"),
    "hand-to-jsonl": Peer("hand_loop.py", ("--form", "tuned", "--output", "jsonl")),
    "hand-any-shape": Peer("shape_loop.py"),
    "stock-runinference": Peer("stock_runinference.py"),
    "dictreader": Peer("dictreader.py", takes_threads=False),
    "plain-script": Peer("plain_script.py", takes_threads=False, clock=False),
    "daft": Peer("peers/daft/score.py", clock=False, environment="daft"),
    "ray": Peer("peers/ray/score.py", clock=False, environment="ray"),
    "spark": Peer("peers/spark/score.py", clock=False, environment="spark"),
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Contenders that run interleaved; the first is compared with each of the others.

    Attributes:
      most_rows: more rows would take too long, or are not the question.
    """

    contenders: tuple[str, ...]
    shape: str = "people"
    most_rows: int = 1_000_000_000


SUITES: dict[str, list[Group]] = {
    "csv": [Group(("ours", "hand-default", "hand-tuned", "hand-tuned-typed"))],
    "jsonl": [Group(("ours-jsonl", "hand-jsonl")), Group(("ours-to-jsonl", "hand-to-jsonl"))],
    "dirty": [
        *(Group((f"ours{format_}-bad", f"ours{format_}")) for format_ in ("", "-jsonl", "-parquet", "-tfrecord")),
        *(Group((f"ours-bad-{share}", "ours")) for share in ("10", "all")),
    ],
    "wide": [Group(("ours", "hand-any-shape"), shape) for shape in ("wide-100", "wide-1000")],
    "strings": [Group(("ours", "hand-any-shape"), "strings")],
    "text": [Group(("ours", "hand-any-shape"), "text")],
    "heavy": [Group(("ours", "hand-any-shape"), "heavy")],
    "small": [Group(("ours", "plain-script"), most_rows=200_000)],
    "peers": [Group(("ours", "daft", "ray", "spark"))],
    "slow": [Group(("ours", "stock-runinference", "dictreader"), most_rows=1_000_000)],
}
