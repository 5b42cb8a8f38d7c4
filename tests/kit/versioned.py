"""A folder of versions: published, half copied, damaged and removed while a server looks at it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import jobs
import models
import serving

KINDS = 5
"""Different models. That of version N multiplies by `factor(N)`."""


def factor(number: int) -> int:
    return number % KINDS + 1


ROW = {"instances": [{"x": 1}]}


class Versions:
    """Versions of a model below a folder.

    Args:
      folder: empty; `models/` is what the server looks at.
    """

    def __init__(self, folder: Path):
        self.folder, self.base, self._made = folder, folder / "models", folder / "made"
        self.base.mkdir(parents=True)
        self._lines: list[str] = []

    @contextlib.contextmanager
    def served(self, *arguments: str, **settings: Any) -> Iterator[serving.Server]:
        """Serve the versions while the body runs, and read the log."""
        with serving.served(self.folder, self.job(**settings), *arguments) as server:
            threading.Thread(target=self._read, args=(server.process.stderr,), daemon=True).start()
            yield server

    def _read(self, stream: TextIO) -> None:
        for line in stream:
            self._lines.append(line)

    @property
    def log(self) -> str:
        """The lines of the log since the last `reload`."""
        return "".join(self._lines)

    def reload(self, server: serving.Server, wait: bool = True, rollout: Any = None, **versions: Any) -> None:
        """Change the sections `versions` and `rollout` of the job file, and let the server read it."""
        self.job(versions=versions, rollout=rollout)
        self._lines.clear()
        os.kill(server.process.pid, signal.SIGHUP)
        if wait:
            until(lambda: "the job file is reloaded" in self.log)

    def made(self, number: int) -> Path:
        """Return a SavedModel for a version, built once."""
        path = self._made / str(factor(number))
        if not path.exists():
            models.scaled(path, float(factor(number)))
        return path

    def publish(self, number: int, made: Path | None = None) -> None:
        """Add a version at once.

        Args:
          made: its model, if it is not the one of the number.
        """
        with self.half(number, made):
            pass

    def copy(self, number: int, pause_s: float, but: str | None = None) -> None:
        """Copy a version file by file, with pauses.

        Args:
          but: a file that is left out.
        """
        made = self.made(number)
        files = [file for file in sorted(made.rglob("*")) if file.is_file() and file.name != but]
        for file in files:
            to = self.base / str(number) / file.relative_to(made)
            to.parent.mkdir(parents=True, exist_ok=True)
            data = file.read_bytes()
            with open(to, "wb") as out:  # in two halves
                out.write(data[: len(data) // 2])
                out.flush()
                time.sleep(pause_s)
                out.write(data[len(data) // 2 :])
            time.sleep(pause_s)

    @contextlib.contextmanager
    def half(self, number: int, made: Path | None = None) -> Iterator[Path]:
        """Copy a version beside its place, and move it there in the end."""
        beside = self.folder / f"copy-{number}"
        shutil.copytree(made or self.made(number), beside)
        yield beside
        os.rename(beside, self.base / str(number))

    def remove(self, number: int) -> None:
        """Remove a version."""
        beside = self.folder / f"gone-{number}-{time.monotonic_ns()}"
        os.rename(self.base / str(number), beside)
        shutil.rmtree(beside)

    def only(self, server: serving.Server, number: int) -> int:
        """Set all settings back, add a version, and remove the others once it answers; return its number."""
        self.reload(server)
        self.publish(number)
        until(lambda: answers(server, number))
        for old in self.numbers:
            if old != number:
                self.remove(old)
        until(lambda: available(server) == {number})
        return number

    def corrupt(self, number: int) -> None:
        """Damage the graph of a version."""
        (self.base / str(number) / "saved_model.pb").write_bytes(b"\x99 not a graph")

    def unload(self, number: int) -> None:
        """Damage the variables of a version, which only shows when it is loaded."""
        file = self.base / str(number) / "variables" / "variables.data-00000-of-00001"
        file.write_bytes(b"\x99" * file.stat().st_size)

    @property
    def numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self.base.iterdir())

    def job(self, poll: float = 0.1, rollout: Any = None, **serve: Any) -> str:
        """Write the job file, and return its path."""
        versions = {"poll": poll, **serve.pop("versions", {})}
        serve["rollout"] = {"keep_previous": 0, **(rollout or {})}
        settings = jobs.settings(
            self.folder,
            str(self.base),
            columns={"x": {"dtype": "float32", "range": [0, 1000]}},
            inputs={},
            serve={"name": "m", "versions": versions, **serve},
        )
        path = self.folder / "job.yaml"
        beside = self.folder / "job.new"
        beside.write_text(json.dumps(settings | {"input": {"files": "*.jsonl"}}))
        os.replace(beside, path)
        return str(path)


def states(server: serving.Server, name: str = "m") -> dict[int, str]:
    """Return the states of the versions."""
    found = server.get(f"/v1/models/{name}").json()["model_version_status"]
    return {int(one["version"]): one["state"] for one in found}


def available(server: serving.Server, name: str = "m") -> set[int]:
    """Return the versions that are available."""
    return {number for number, state in states(server, name).items() if state == "AVAILABLE"}


def error(server: serving.Server, number: int) -> str:
    """Return the error text of a version."""
    (found,) = server.get(f"/v1/models/m/versions/{number}").json()["model_version_status"]
    return found["status"]["error_message"]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    late = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late, "it has not happened"
        time.sleep(0.05)


def asked(server: serving.Server, path: str = "/predict", id_: str = "") -> tuple[int, int]:
    """Return the version that answers a request, and the factor by which it multiplies."""
    answer = server.post(path, ROW, headers={"X-Request-ID": id_})
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-model-version"]), round(answer.json()["predictions"][0])


def answers(server: serving.Server, number: int, path: str = "/predict") -> bool:
    """Return whether a version answers."""
    version, by = asked(server, path)
    assert by == factor(version)
    return version == number
