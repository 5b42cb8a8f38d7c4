"""Valid names, regions, folders and machine types of Dataflow and Compute Engine."""

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

_MEMORY_GB: dict[str, dict[str, float]] = {
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
"""Gigabytes per vCPU of the predefined machine types with x86 processors and without accelerators."""

_ARM = ("t2a", "c4a", "n4a")
_PREDEFINED = re.compile(r"([a-z0-9]+)-([a-z]+)-([0-9]+)")
_CUSTOM = re.compile(r"(?:(n1|n2|n2d|n4|e2)-)?custom-([0-9]+)-([0-9]+)(?:-ext)?")


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine type.

    Attributes:
      name: of the type.
      vcpus: number of virtual processors.
      memory_gb: memory in GiB.
    """

    name: str
    vcpus: int
    memory_gb: float


def machine(name: str) -> Machine:
    """Return the processors and memory of a machine type. Raises ValueError if the type is unknown or not supported."""
    if found := _CUSTOM.fullmatch(name):
        return Machine(name, int(found[2]), int(found[3]) / 1024)
    found = _PREDEFINED.fullmatch(name)
    if found and found[1] in _ARM:
        raise ValueError(f"{name} has an ARM processor, and tfx-bsl needs x86: use for example n2-standard-4")
    memory = _MEMORY_GB.get(found[1], {}).get(found[2]) if found else None
    if found is None or memory is None:
        raise ValueError(
            f"{name!r} is not a known machine type: write FAMILY-KIND-VCPUS, for example n2-standard-4, or "
            f"FAMILY-custom-VCPUS-MEGABYTES, for example n2-custom-4-8192; families are {', '.join(_MEMORY_GB)}"
        )
    return Machine(name, int(found[3]), memory * int(found[3]))


def project_problem(value: str) -> str | None:
    """Return why a value is not a project id, or None."""
    if value.isdigit():
        return f"{value} is a project number: Dataflow needs the project id, for example my-project-123"
    if not _PROJECT.fullmatch(value):
        return (
            f"{value!r} is not a project id: expected 6 to 30 characters, a-z, 0-9 and hyphens, beginning with a-z and "
            "not ending with a hyphen"
        )
    return None


def region_problem(value: str) -> str | None:
    """Return why a value is not a region, or None."""
    if _REGION.fullmatch(value):
        return None
    if _REGION.fullmatch(value.rpartition("-")[0]):
        return f"{value} is a zone: Dataflow needs the region, {value.rpartition('-')[0]}"
    return f"{value!r} is not a region: expected for example europe-west4 or us-central1"


def job_name_problem(value: str) -> str | None:
    """Return why a value is not a job name, or None."""
    if _JOB_NAME.fullmatch(value):
        return None
    return (
        f"{value!r} is not a job name: expected at most {LONGEST_NAME} characters, a-z, 0-9 and hyphens, beginning "
        "with a-z and not ending with a hyphen"
    )


def account_problem(value: str) -> str | None:
    """Return why a value is not a service account, or None."""
    if _ACCOUNT.fullmatch(value):
        return None
    return f"{value!r} is not a service account: expected an address such as scorer@PROJECT.iam.gserviceaccount.com"


def folder_problem(value: str) -> str | None:
    """Return why a value is not a folder on Cloud Storage, or None."""
    if _BUCKET.fullmatch(value):
        return None
    if _BUCKET.fullmatch(value + "/"):
        return f"{value} is a bucket: expected a folder in it, for example {value}/dataflow"
    return f"{value!r} is not on Cloud Storage: write gs://BUCKET/FOLDER"


def label_problems(labels: dict[str, str]) -> list[str]:
    """Return a message for each invalid label of a job."""
    found = [f"{len(labels)} labels, expected at most {_MOST_LABELS}"] if len(labels) > _MOST_LABELS else []
    for key, value in labels.items():
        if not (_is_label(key) and key and unicodedata.category(key[0]) in ("Ll", "Lo")):
            found.append(
                f"{key!r} is not a label: expected at most 63 characters, lower case, digits, - and _, beginning "
                "with lower case"
            )
        if not _is_label(value):
            found.append(
                f"{key}: {value!r} is not a label value: expected at most 63 characters, lower case, digits, - and _"
            )
    return found


def _is_label(text: str) -> bool:
    return len(text) <= LONGEST_NAME and all(
        c in "-_" or unicodedata.category(c) in ("Ll", "Lo", "Nd", "Nl", "No") for c in text
    )


def job_name(prefix: str, run: str) -> str:
    """Return the name of a run's job: the same for each launch of the run, so that Dataflow refuses a second job
    while the first one is running.

    Args:
      prefix: a valid name.
      run: the run's id, of A-Z, a-z, 0-9 and hyphens.
    """
    run = run.lower()
    return f"{prefix[: LONGEST_NAME - len(run) - 1].rstrip('-')}-{run}"
