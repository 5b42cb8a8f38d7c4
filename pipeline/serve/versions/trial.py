"""A version under observation: the share of requests that it gets before it takes over, and the bounds it must keep."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import zlib
from collections import Counter

from beam_score.pipeline.job.rollout import Rollout
from beam_score.pipeline.serve.answering.answer import Answer, Request
from beam_score.pipeline.serve.front.models import Served
from beam_score.pipeline.serve.reports.accounts import Account
from beam_score.pipeline.serve.versions.agree import answers_agree

LEAST_REQUESTS = 20
"""Fewer requests say nothing about a version."""

_MOST_SHADOWS = 64
"""Copies of requests at the same time; further ones are left out."""

_SHADOW_S = 30.0

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Measured:
    """The requests of a version up to a moment.

    Attributes:
      requests: that were answered.
      errors: requests that failed, and rows that the model refused.
      seconds: of all requests.
    """

    requests: float
    errors: float
    seconds: float

    @classmethod
    def of(cls, account: Account) -> Measured:
        """Return those of an account."""
        failed = sum(count for (*_, status), count in account.requests.items() if status >= 500)
        refused = sum(count for (reason, _), count in account.reasons.items() if reason == "model_error")
        seconds = sum(buckets.as_prometheus()[1] for buckets in account.seconds.values())
        return cls(sum(account.requests.values()), failed + refused, seconds)

    def since(self, before: Measured) -> Measured:
        """Return those after another moment."""
        return Measured(self.requests - before.requests, self.errors - before.errors, self.seconds - before.seconds)

    @property
    def errors_share(self) -> float:
        """Errors by request."""
        return self.errors / max(self.requests, 1)

    @property
    def mean_s(self) -> float:
        """Seconds by request."""
        return self.seconds / max(self.requests, 1)


class Observation:
    """A version that is compared with the one before, for some time.

    Args:
      served: the version.
      before: the version that answers, or did before.
      rollout: the bounds.
    """

    def __init__(self, served: Served, before: Served, rollout: Rollout):
        self.served, self.before, self.rollout = served, before, rollout
        self.until = time.monotonic() + rollout.hold
        self._begun = [Measured.of(one.account) for one in (served, before)]

    @property
    def over(self) -> bool:
        """True once the time has passed."""
        return time.monotonic() >= self.until

    def problem(self) -> str | None:
        """Return the bound that the version breaks, as a phrase; None while it keeps all."""
        new = Measured.of(self.served.account).since(self._begun[0])
        old = Measured.of(self.before.account)
        meanwhile = old.since(self._begun[1])
        old = meanwhile if meanwhile.requests >= LEAST_REQUESTS else old
        if new.requests < LEAST_REQUESTS:
            return None
        if new.errors_share > self.rollout.max_errors + old.errors_share:
            return f"{new.errors:,.0f} of {new.requests:,.0f} requests failed"
        most = self.rollout.max_latency
        if most is not None and old.requests >= LEAST_REQUESTS and new.mean_s > most * old.mean_s:
            times = new.mean_s / old.mean_s
            return f"it takes {times:.1f} times the time of version {self.before.version.number}, more than {most:g}"
        return None


class Trial(Observation):
    """A version that does not answer all requests yet: a share of them, and copies of others.

    Attributes:
      shadows: the results of copies.
    """

    def __init__(self, served: Served, before: Served, rollout: Rollout, shadows: Counter[str]):
        super().__init__(served, before, rollout)
        self.shadows = shadows
        self._copies: set[asyncio.Task[None]] = set()
        self._ended = False
        if rollout.shadow:
            before.observer = self._copy

    def end(self) -> None:
        """Send it no more copies, and log the results of all once the last is answered."""
        self.before.observer, self._ended = None, True
        if not self._copies:
            self._log_results()

    def _log_results(self) -> None:
        if self.shadows:
            version, counts = self.served.version, ", ".join(f"{n} {result}" for result, n in self.shadows.items())
            _log.info("%s: copies of requests to version %d: %s", version.name, version.number, counts)

    def takes(self, id_: str) -> bool:
        """Return whether it answers a request: always the same for the same id."""
        return _share_of(id_, "canary") < self.rollout.canary

    def _copy(self, request: Request, answer: Answer) -> None:
        """Ask it too, and compare the answers; the client does not wait for it."""
        if _share_of(request.id, "shadow") >= self.rollout.shadow:
            return
        if len(self._copies) >= _MOST_SHADOWS:
            self.shadows["dropped"] += 1
            return
        task = asyncio.create_task(self._compare(request, answer))
        self._copies.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._copies.discard(task)
        if self._ended and not self._copies:
            self._log_results()

    async def _compare(self, request: Request, answer: Answer) -> None:
        other = await self.served.answer(request, _SHADOW_S, "shadow")
        agree = answers_agree(request.form, answer, other, self.rollout.tolerance)
        result = "same" if agree else "failed" if other.status >= 500 else "different"
        self.shadows[result] += 1
        if not agree and self.shadows[result] == 1:
            version, before = self.served.version, self.before.version.number
            first = "%s: version %d answers request %s not as version %d does: %s"
            _log.warning(first, version.name, version.number, request.id, before, result)


def _share_of(id_: str, purpose: str) -> float:
    """Return a number in 0..1 that an id has for ever."""
    return zlib.crc32(f"{purpose} {id_}".encode()) / (1 << 32)
