"""Where the packages are; all other settings are in pyproject.toml. Beam's --setup_file needs this file, too."""

from setuptools import find_packages, setup

ROOTS = ("pipeline", "transforms", "runners")
"""Folders of the repository that are installed under `beam_score`. Others, tests above all, are never installed."""

setup(
    packages=["beam_score", *(f"beam_score.{name}" for name in find_packages(include=[f"{root}*" for root in ROOTS]))],
    package_dir={"beam_score": "beam_score", **{f"beam_score.{root}": root for root in ROOTS}},
)
