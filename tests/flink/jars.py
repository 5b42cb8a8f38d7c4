"""A job server for Flink, and all that a cluster is started from, out of plain Maven artifacts.

They are kept in a folder of the user's cache, named for the versions, so that they are fetched once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

POM = Path(__file__).parent / "pom.xml"
OPENED = [
    f"java.base/{package}"
    for package in (
        "java.lang",
        "java.lang.reflect",
        "java.io",
        "java.net",
        "java.nio",
        "java.text",
        "java.time",
        "java.util",
        "java.util.concurrent",
        "java.util.concurrent.atomic",
        "java.util.concurrent.locks",
        "sun.nio.ch",
    )
]
"""Packages of Java that Flink and Beam look into."""

_MAIN = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_FETCHED_WITHIN_S = 900
_LINE = 72  # bytes a line of a manifest


class Missing(Exception):
    """What is needed is not on this machine."""


def fetched() -> Path:
    """A folder with `lib/`, all jars, and `job-server.jar`, which Java runs.

    Raises:
      Missing: there is no Java, or no Maven, or it could not fetch them.
    """
    if shutil.which("java") is None:
        raise Missing("java is not installed (11 or later)")
    version = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam-score-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"flink-{version}"
    with open(cache / "lock", "w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            fresh = cache / f"flink-{version}-fetching"
            shutil.rmtree(fresh, ignore_errors=True)
            _fetch(fresh / "lib")
            _write_thin_jar(fresh / "job-server.jar", fresh / "lib")
            fresh.rename(folder)
    return folder


def _fetch(lib: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise Missing("mvn (Maven) is not installed, and fetches Flink's jars once")
    lib.mkdir(parents=True)
    command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    command.append(f"-DoutputDirectory={lib}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCHED_WITHIN_S)
    if done.returncode:
        raise Missing(f"Maven could not fetch Flink's jars: {' '.join(done.stdout.split())[:500]}")


def _write_thin_jar(path: Path, lib: Path) -> None:
    """A jar that is a manifest: the classes are in those that it names."""
    lines = [
        "Manifest-Version: 1.0",
        f"Main-Class: {_MAIN}",
        f"Add-Opens: {' '.join(OPENED)}",
        f"Class-Path: {' '.join(f'lib/{jar.name}' for jar in sorted(lib.glob('*.jar')))}",
    ]
    with zipfile.ZipFile(path, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "".join(map(_wrapped, lines)) + "\r\n")
        jar.writestr("simplelogger.properties", "org.slf4j.simpleLogger.defaultLogLevel=warn\n")


def _wrapped(line: str) -> str:
    """A line of a manifest, which goes on in the next after so many bytes."""
    parts = [line[:_LINE], *(line[at : at + _LINE - 1] for at in range(_LINE, len(line), _LINE - 1))]
    return "\r\n ".join(parts) + "\r\n"
