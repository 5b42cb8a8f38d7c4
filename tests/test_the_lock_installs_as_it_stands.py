"""The locks install by the Makefile's own rules, whatever newer versions an index has, with old and new pips."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-test.lock")
OLDEST = "pip==22.3"
"""What Python 3.11.0 brings; no supported Python brings an older one."""

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: ;[^\\\n]*)?)", re.MULTILINE)


def pins(lock: str) -> list[tuple[str, str, str]]:
    """(name, version, marker with its semicolon or nothing) of each line of a lock."""
    return _PIN.findall((ROOT / lock).read_text())


def newer(version: str) -> str:
    """A version that is newer by so little that requirements with an upper bound allow it, too."""
    return f"{version}.999"


def write_wheel(folder: Path, name: str, version: str) -> str:
    """Write a wheel of no code with the requirements and extras of the real package, and return its SHA-256.

    The requirements are those of the version that is installed here; a package of another platform has none.
    """
    written = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    try:
        real = metadata.metadata(name)
        for key in ("Requires-Dist", "Provides-Extra"):
            written += [f"{key}: {value}" for value in real.get_all(key) or []]
    except metadata.PackageNotFoundError:
        pass
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    files = {
        f"{stem}.dist-info/METADATA": "\n".join(written) + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text)}\n"
        for path, text in files.items()
    )
    files[f"{stem}.dist-info/RECORD"] = record + f"{stem}.dist-info/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)  # without the time: the same wheel has the same hash
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    """A package index of wheels without code: each locked version, and a newer one of everything.

    Beside it the two locks with the hashes of these wheels, and the Makefile.
    """
    folder = tmp_path_factory.mktemp("index")
    for lock in LOCKS:
        lines = []
        for name, version, marker in pins(lock):
            own = folder / "simple" / re.sub(r"[-_.]+", "-", name).lower()
            digest = write_wheel(own, name, version)
            write_wheel(own, name, newer(version))
            lines.append(f"{name}=={version}{marker} --hash=sha256:{digest}\n")
        (folder / lock).write_text("".join(lines))
    for own in (folder / "simple").iterdir():
        links = "".join(f'<a href="{wheel.name}">{wheel.name}</a>\n' for wheel in sorted(own.glob("*.whl")))
        (own / "index.html").write_text(links)
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def pip_wheel(folder: Path, which: str) -> Path:
    """Fetch a pip; as a wheel it can be run without being installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, which]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "CI" not in os.environ:
        pytest.skip(f"{which} cannot be fetched here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("pip-*.whl"))


@pytest.mark.parametrize("which", [OLDEST, "pip"], ids=["oldest", "newest"])
def test_it_installs_without_resolving(index, which, tmp_path):
    pip = pip_wheel(tmp_path / "pip", which)
    shutil.copytree(index, tmp_path / "clone", ignore=shutil.ignore_patterns("simple"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        ["make", f"PIP=$(BIN)/python {pip}/pip --quiet", f"PYTHON={sys.executable}", ".venv/locked-test"],
        cwd=tmp_path / "clone",
        env=kept | {"PIP_INDEX_URL": (index / "simple").as_uri(), "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (site_packages,) = (tmp_path / "clone/.venv").glob("lib/python*/site-packages")
    found = {d.name.lower(): d.version for d in metadata.distributions(path=[str(site_packages)])}
    assert not [name for name, version in found.items() if version.endswith(".999")]
    assert {"google-auth", "apache-beam", "boto3", "pytest"} <= found.keys()


def test_what_tests_need_has_the_versions_of_the_lock():
    """One environment holds both, one installed over the other."""
    own = {(name, marker): version for name, version, marker in pins("requirements-test.lock")}
    other = {
        name: (version, own[name, marker])
        for name, version, marker in pins("requirements.lock")
        if own.get((name, marker), version) != version
    }
    assert not other
