"""Executes the steps of docker/Dockerfile without a container: its COPY and RUN lines, in an empty environment.

    python tests/kit/image_steps.py FOLDER

FOLDER replaces the root of the image's file system. `python` belongs to a new environment in FOLDER, with the Python
version that runs this script. Skipped, with a note: copies from other images, and creating the user. Takes minutes, and
2 GB.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


@dataclasses.dataclass(frozen=True)
class Step:
    """An instruction and its stage: ("RUN", "python ...", "worker")."""

    verb: str
    rest: str
    stage: str


def steps(text: str) -> Iterator[Step]:
    """Yield the instructions of a Dockerfile in order, including FROM; continued lines are one instruction."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    stage = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            verb, _, rest = line.partition(" ")
            if verb == "FROM":
                stage = rest.partition(" AS ")[2]
            yield Step(verb, rest, stage)


def words(step: Step) -> list[str]:
    """Return a command as a list of words."""
    return json.loads(step.rest)


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    stages, read = set(), DOCKERFILE.read_text()

    def inside(path: str) -> Path:
        return folder / path.lstrip("/")

    for step in steps(read):
        if step.verb == "FROM":
            stages.add(step.stage)
        if step.verb == "COPY" and (found := re.match(r"--from=(\w+) (\S+) (\S+)", step.rest)):
            _, source, target = found.groups()
            if not inside(source).exists():
                print(f"left out: COPY {step.rest}")
                continue
            shutil.copytree(inside(source), inside(target))
        elif step.verb == "COPY":
            *sources, target = shlex.split(step.rest)
            for source in sources:
                to = inside(target) / source if target.endswith("/") else inside(target)
                to.parent.mkdir(parents=True, exist_ok=True)
                leave = shutil.ignore_patterns("__pycache__")
                copied = ROOT / source
                shutil.copytree(copied, to, ignore=leave) if copied.is_dir() else shutil.copy(copied, to)
        elif step.verb == "RUN" and words(step)[0] == "python":
            command = [str(inside(word)) if word.startswith("/") else word for word in words(step)[1:]]
            print(f"+ python {' '.join(command)}", flush=True)
            subprocess.run([python, *command], check=True, cwd=folder)
        elif step.verb == "RUN":
            print(f"left out: RUN {step.rest}")
    told = "import beam_score.pipeline.cli, beam_score.runners.worker.harness; print(beam_score.__file__)"
    subprocess.run([python, "-c", told], check=True, cwd=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
