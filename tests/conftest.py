"""Fixtures for all tests."""

from __future__ import annotations

import models
import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """`model(name)` is the folder of the SavedModel that `tests.models.NAME` writes, built once."""
    folder, built = tmp_path_factory.mktemp("models"), {}

    def build(name):
        if name not in built:
            built[name] = str(getattr(models, name)(folder / name))
        return built[name]

    return build
