"""Memory is bounded by `engine.memory`, whatever the rows, the dead letters and the outputs are like."""

from __future__ import annotations

import dataclasses
import os

import pydantic
import pytest

from runners.machine_memory import machine_bytes
from runners.settings import EngineSettings
from transforms.bounds import DEFAULT_BOUNDS, Bounds, bounds_of

PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

LIMITS = {
    "a container, version 2": ({"sys/fs/cgroup/memory.max": "123000000\n"}, 123_000_000),
    "a container, version 1": ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "456000000\n"}, 456_000_000),
    "a service, version 2": (
        {"proc/self/cgroup": "0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/b.service/memory.max": "7000000\n"},
        7_000_000,
    ),
    "the group above": (
        {
            "proc/self/cgroup": "0::/a.slice/b.service\n",
            "sys/fs/cgroup/a.slice/b.service/memory.max": "max\n",
            "sys/fs/cgroup/a.slice/memory.max": "8000000\n",
        },
        8_000_000,
    ),
    "a group, version 1": (
        {
            "proc/self/cgroup": "9:cpu:/c\n8:memory:/docker/x\n",
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "9000000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
        9_000_000,
    ),
    "no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, PHYSICAL),
    "no control groups": ({}, PHYSICAL),
    "something else": ({"proc/self/cgroup": "x\n0::/../..\n\n", "sys/fs/cgroup/memory.max": "much"}, PHYSICAL),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_limit_of_a_container_is_found(tmp_path, name):
    files, expected = LIMITS[name]
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert machine_bytes(tmp_path) == expected


def test_memory_is_a_size_or_found():
    assert EngineSettings(memory="4GB").memory_bytes == 4_000_000_000
    assert EngineSettings().memory_bytes == int(0.75 * machine_bytes())
    dataflow = {"runner": "dataflow", "dataflow": {"machine_type": "n2-standard-4"}}
    assert EngineSettings(**dataflow).memory_bytes == 12 << 30
    for wrong in ("much", "512MB", True):
        with pytest.raises(pydantic.ValidationError):
            EngineSettings(memory=wrong)


def test_bounds_follow_from_memory_and_workers():
    assert bounds_of(64 << 30, 2) == DEFAULT_BOUNDS
    less = bounds_of(2 << 30, 4)  # 512 MiB a thread
    assert less == Bounds(8 << 20, 16 << 20, 32 << 20, 32 << 20, 32 << 20, 64 << 20)
    assert bounds_of(-(1 << 30), 64) == bounds_of(64 << 20, 1)  # small, and still enough to go on with
    for free, workers in ((1 << 30, 1), (1 << 30, 16), (8 << 30, 3)):
        own = dataclasses.astuple(bounds_of(free, workers))
        assert sum(own) <= max(free / workers, 64 << 20) / 2  # the rest is for copies


def test_the_model_and_the_libraries_are_part_of_the_memory():
    engine = EngineSettings(memory="4GB", workers=2)
    assert engine.bounds(model_bytes=2_000_000_000) == bounds_of(1_200_000_000, 2)
