"""Score very many rows with a TensorFlow SavedModel: every row is predicted or accounted for.

The commands as functions, for programs (`run`, `check`, `status`, `replay`), with what they take, return and raise; and
the steps of the chain for any Beam pipeline (see `beam_score.transforms`). docs/library.md has examples of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from beam_score.transforms.common.lazy import on_first_use

if TYPE_CHECKING:  # type checkers do not see what `__getattr__` returns
    from beam_score.pipeline.commands import check as check
    from beam_score.pipeline.commands import replay as replay
    from beam_score.pipeline.commands import run as run
    from beam_score.pipeline.commands import status as status
    from beam_score.pipeline.job.job import Job as Job
    from beam_score.pipeline.job.job import load_job as load_job
    from beam_score.pipeline.job.mistakes import JobError as JobError
    from beam_score.pipeline.process.exit_codes import ExitCode as ExitCode
    from beam_score.pipeline.run.protocol import Outcome as Outcome
    from beam_score.pipeline.run.status import RunState as RunState
    from beam_score.pipeline.run.status import Status as Status
    from beam_score.pipeline.show.check import Checked as Checked

_WHERE = {
    "Checked": "beam_score.pipeline.show.check",
    "ExitCode": "beam_score.pipeline.process.exit_codes",
    "Job": "beam_score.pipeline.job.job",
    "JobError": "beam_score.pipeline.job.mistakes",
    "Outcome": "beam_score.pipeline.run.protocol",
    "RunState": "beam_score.pipeline.run.status",
    "Status": "beam_score.pipeline.run.status",
    "check": "beam_score.pipeline.commands",
    "load_job": "beam_score.pipeline.job.job",
    "replay": "beam_score.pipeline.commands",
    "run": "beam_score.pipeline.commands",
    "status": "beam_score.pipeline.commands",
}

__all__ = sorted(_WHERE)

# On first use: a program that only asks for a status does not have to wait for Beam.
__getattr__, __dir__ = on_first_use(__name__, _WHERE)
