"""What Dataflow and Compute Engine take for a name, a place and a machine."""

from __future__ import annotations

import dataclasses
import re
import unicodedata

_PROJECT = re.compile(r"([a-z][-a-z0-9.]*[a-z0-9]:)?[a-z][-a-z0-9]{4,28}[a-z0-9]")
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_JOB_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_ACCOUNT = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_BUCKET = re.compile(r"gs://[a-z0-9][-_.a-z0-9]+[a-z0-9]/.*")
_MOST_LABELS = 64
LONGEST_NAME = 63

_MEMORY_GB = {
    "n1": {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9},
    "n2": {"standard": 4, "highmem": 8, "highcpu": 1},
    "n2d": {"standard": 4, "highmem": 8, "highcpu": 1},
    "n4": {"standard": 4, "highmem": 8, "highcpu": 2},
    "e2": {"standard": 4, "highmem": 8, "highcpu": 1},
    "c2": {"standard": 4},
    "c2d": {"standard": 4, "highmem": 8, "highcpu": 2},
    "c3": {"standard": 4, "highmem": 8, "highcpu": 2},
    "t2d": {"standard": 4},
}
"""Gigabytes a vCPU of the predefined machine types with x86 processors and without accelerators."""

_ARM = ("t2a", "c4a", "n4a")
_PREDEFINED = re.compile(r"([a-z0-9]+)-([a-z]+)-([0-9]+)")
_CUSTOM = re.compile(r"(?:(n1|n2|n2d|n4|e2)-)?custom-([0-9]+)-([0-9]+)(?:-ext)?")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Attributes:
    name: of its type.
    vcpus: how many virtual processors it has.
    memory_gb: its memory, in the gigabytes that the type's name counts in.
    """

    name: str
    vcpus: int
    memory_gb: float


def machine(name: str) -> Machine:
    """What a machine type is made of. Raises ValueError, with a sentence, where it is none that is known."""
    if found := _CUSTOM.fullmatch(name):
        return Machine(name, int(found[2]), int(found[3]) / 1024)
    found = _PREDEFINED.fullmatch(name)
    if found and found[1] in _ARM:
        raise ValueError(f"{name} has an ARM processor, and tfx-bsl is built for x86 only: take n2-standard-4, say")
    memory = _MEMORY_GB.get(found[1], {}).get(found[2]) if found else None
    if memory is None:
        raise ValueError(
            f"{name!r} is no machine type that is known here: write FAMILY-KIND-VCPUS, as n2-standard-4, or "
            f"FAMILY-custom-VCPUS-MEGABYTES, as n2-custom-4-8192; families are {', '.join(_MEMORY_GB)}"
        )
    return Machine(name, int(found[3]), memory * int(found[3]))


def project_problem(value: str) -> str | None:
    """Why this is no project, or None."""
    if value.isdigit():
        return f"{value} is a project's number: Dataflow wants its id, as my-project-123"
    if not _PROJECT.fullmatch(value):
        return f"{value!r} is no project id: 6 to 30 lower-case letters, digits and hyphens, a letter first"
    return None


def region_problem(value: str) -> str | None:
    """Why this is no region, or None."""
    if _REGION.fullmatch(value):
        return None
    if _REGION.fullmatch(value.rpartition("-")[0]):
        return f"{value} is a zone: Dataflow wants the region, {value.rpartition('-')[0]}"
    return f"{value!r} is no region: write one as europe-west4 or us-central1"


def job_name_problem(value: str) -> str | None:
    """Why this is no name for a job, or None."""
    if _JOB_NAME.fullmatch(value):
        return None
    return (
        f"{value!r} is no job name: at most {LONGEST_NAME} lower-case letters, digits and hyphens, a letter first, "
        "and no hyphen last"
    )


def account_problem(value: str) -> str | None:
    """Why this is no service account, or None."""
    if _ACCOUNT.fullmatch(value):
        return None
    return f"{value!r} is no service account: write its address, as scorer@PROJECT.iam.gserviceaccount.com"


def folder_problem(value: str) -> str | None:
    """Why this is no place on Cloud Storage, or None."""
    if _BUCKET.fullmatch(value):
        return None
    if _BUCKET.fullmatch(value + "/"):
        return f"{value} is a bucket: name a folder in it, as {value}/dataflow"
    return f"{value!r} is not on Cloud Storage: write gs://BUCKET/FOLDER"


def label_problems(labels: dict[str, str]) -> list[str]:
    """Why these are no labels of a job, a sentence each."""
    found = [f"{len(labels)} labels, and a job may have {_MOST_LABELS}"] if len(labels) > _MOST_LABELS else []
    for key, value in labels.items():
        if not (_is_label(key) and key and unicodedata.category(key[0]) in ("Ll", "Lo")):
            found.append(f"{key!r} is no label: at most 63 lower-case letters, digits, - and _, a letter first")
        if not _is_label(value):
            found.append(f"{key}: {value!r} is no label's value: at most 63 lower-case letters, digits, - and _")
    return found


def _is_label(text: str) -> bool:
    return len(text) <= LONGEST_NAME and all(
        c in "-_" or unicodedata.category(c) in ("Ll", "Lo", "Nd", "Nl", "No") for c in text
    )


def job_name(prefix: str, run: str) -> str:
    """The name of a run's job: the same for each launch of that run, so that Dataflow refuses a second one
    while the first is at work.

    Args:
      prefix: a valid name.
      run: the run's id, of letters, digits and hyphens.
    """
    run = run.lower()
    return f"{prefix[: LONGEST_NAME - len(run) - 1].rstrip('-')}-{run}"
