"""The time of the stages of a batch: validate, until the model is called first; model; encode, after its last call."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from beam_score.transforms.model.model import Feeds, Model


class Clock:
    """The stages of one batch after the other."""

    def __init__(self) -> None:
        self._began = self._called = self._answered = 0.0

    def start(self) -> None:
        """Begin a batch."""
        self._began, self._called, self._answered = time.perf_counter(), 0.0, 0.0

    def call(self) -> None:
        """Note that the model is called."""
        self._called = self._called or time.perf_counter()

    def answer(self) -> None:
        """Note that the model has answered."""
        self._answered = time.perf_counter()

    def stages(self) -> tuple[float, float, float]:
        """Return the seconds of validate, model and encode. Without a call, all is validate."""
        now = time.perf_counter()
        called, answered = self._called or now, self._answered or now
        return called - self._began, answered - called, now - answered


class Timed(Model):
    """A model that notes its calls.

    Args:
      model: the model.
      clock: notes the calls.
    """

    def __init__(self, model: Model, clock: Clock):
        self._model, self._clock = model, clock
        self.signature, self.runtime, self.why = model.signature, model.runtime, model.why
        self.takes_texts = model.takes_texts

    def call(self, feeds: Mapping[str, np.ndarray], deadline_s: float | None = None) -> Feeds:
        """Call the model; see `Model.call`."""
        self._clock.call()
        try:
            return self._model.call(feeds, deadline_s)
        finally:
            self._clock.answer()

    def call_compiled(self, feeds: Mapping[str, np.ndarray], deadline_s: float | None = None) -> Feeds:
        """Call the compiled model; see `Model.call_compiled`."""
        self._clock.call()
        try:
            return self._model.call_compiled(feeds, deadline_s)
        finally:
            self._clock.answer()

    def nodes(self) -> Mapping[str, str]:
        """Return the nodes of the graph; see `Model.nodes`."""
        return self._model.nodes()
