"""Estimate of the time and machine hours of a job on Dataflow, with its assumptions.

Prices change, and depend on region and contract: money is estimated only with the prices of the job file.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from beam_score.runners.engine import Measured
from beam_score.runners.settings.dataflow_names import Machine

OVERHEAD = 1.5
"""Factor on the measured processor time, for writing, Cloud Storage, and compression of network traffic."""

START_S = 240
"""Seconds from the creation of a VM, when billing starts, to its first row: it loads the image and the model."""

WORTH_A_VM_S = 300
"""Least work per VM, in seconds: the service adds VMs while there is work for them."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The estimated time of a job.

    Attributes:
      vms: number of VMs that work at the same time.
      seconds: from the start of the first VM to the end of the job.
      vcpu_hours, memory_gb_hours: what all VMs together are paid for.
    """

    vms: int
    seconds: float
    vcpu_hours: float
    memory_gb_hours: float


def estimate(measured: Measured, machine: Machine, threads: int, most_vms: int) -> Estimate:
    """Estimate the time of a job.

    Args:
      threads: per VM.
      most_vms: largest number of VMs.
    """
    vcpu_seconds = measured.rows * measured.cpu_s_a_row * OVERHEAD
    at_work = min(threads, machine.vcpus)
    vms = min(most_vms, max(1, math.ceil(vcpu_seconds / at_work / WORTH_A_VM_S)))
    seconds = START_S + vcpu_seconds / at_work / vms
    vm_hours = vms * seconds / 3600
    return Estimate(vms, seconds, vm_hours * machine.vcpus, vm_hours * machine.memory_gb)


def described(
    found: Estimate, measured: Measured, vcpu_hour_usd: float | None, memory_gb_hour_usd: float | None
) -> Sequence[str]:
    """Describe an estimate and its assumptions, one line each; the cost only with both prices."""
    micros = 1e6 * measured.cpu_s_a_row
    if vcpu_hour_usd is None or memory_gb_hour_usd is None:
        cost = "for its cost set engine.dataflow.vcpu_hour_usd and memory_gb_hour_usd"
    else:
        usd = found.vcpu_hours * vcpu_hour_usd + found.memory_gb_hours * memory_gb_hour_usd
        cost = (
            f"about {usd:,.2f} USD, by the prices of the job file: {vcpu_hour_usd:g} USD per vCPU hour, "
            f"{memory_gb_hour_usd:g} USD per GB hour of memory"
        )
    return [
        f"estimate, not guaranteed: about {_time(found.seconds)} with {found.vms} VMs: {found.vcpu_hours:,.1f} vCPU "
        f"hours, {found.memory_gb_hours:,.1f} GB hours of memory",
        f"assumed: {measured.rows:,.0f} rows, from the size of the first rows; {micros:.2f} microseconds of processor "
        f"time per row, measured on this machine with {measured.tried:,} rows, times {OVERHEAD:g} for writing and "
        f"Cloud Storage; a vCPU as fast as a core of this machine; {START_S // 60} minutes to start a VM",
        f"{cost}; without disks, shuffle, storage and network",
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
