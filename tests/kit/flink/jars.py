"""A job server for Flink, and the files that start a cluster, from plain Maven artifacts.

They are stored in a folder of the user's cache, named after the versions, so that they are fetched once.
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
START = Path(__file__).parent / "Start.java"
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
"""Java packages that Flink and Beam access by reflection."""

_MAIN = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_FETCHED_WITHIN_S = 900
_COMPILED_WITHIN_S = 60
_LINE = 72  # bytes per line of a manifest


class Missing(Exception):
    """A requirement is missing on this machine."""


def fetched() -> Path:
    """Return a folder with `lib/`, all jars, and two jars that Java runs: `job-server.jar`, and
    `job-server-for-cluster.jar`, for a cluster that is started from the same `lib/`.

    Raises:
      Missing: Java or Maven is missing, or Maven could not fetch the artifacts.
    """
    if shutil.which("javac") is None:
        raise Missing("a JDK is not installed (11 or later)")
    version = hashlib.sha256(b"".join(p.read_bytes() for p in (POM, START, Path(__file__)))).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam-score-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"flink-{version}"
    with open(cache / "lock", "w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            fresh = cache / f"flink-{version}-fetching"
            shutil.rmtree(fresh, ignore_errors=True)
            _fetch(fresh / "lib")
            names = " ".join(f"lib/{jar.name}" for jar in sorted((fresh / "lib").glob("*.jar")))
            _write_jar(fresh / "job-server.jar", [f"Main-Class: {_MAIN}", f"Class-Path: {names}"])
            subprocess.run(["javac", "-d", str(fresh), str(START)], check=True, timeout=_COMPILED_WITHIN_S)
            _write_jar(
                fresh / "job-server-for-cluster.jar",
                ["Main-Class: Start", "Launcher-Agent-Class: Start"],
                fresh / "Start.class",
            )
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


def _write_jar(path: Path, attributes: list[str], *classes: Path) -> None:
    """Write a jar that contains little more than a manifest: the classes are in `lib/`."""
    lines = ["Manifest-Version: 1.0", f"Add-Opens: {' '.join(OPENED)}", *attributes]
    with zipfile.ZipFile(path, "w") as jar:
        for file in classes:
            jar.write(file, file.name)
        jar.writestr("META-INF/MANIFEST.MF", "".join(map(_wrapped, lines)) + "\r\n")
        jar.writestr("simplelogger.properties", "org.slf4j.simpleLogger.defaultLogLevel=warn\n")


def _wrapped(line: str) -> str:
    """Wrap a line of a manifest, which continues on the next line after `_LINE` bytes."""
    parts = [line[:_LINE], *(line[at : at + _LINE - 1] for at in range(_LINE, len(line), _LINE - 1))]
    return "\r\n ".join(parts) + "\r\n"
