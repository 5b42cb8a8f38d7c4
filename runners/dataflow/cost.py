"""Estimate of the time and cost of a job on Dataflow, with its assumptions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from beam_score.runners.engine import Measured
from beam_score.runners.settings.dataflow_names import Machine


@dataclasses.dataclass(frozen=True)
class Prices:
    """List prices of batch workers, in US dollars.

    Attributes:
      region: the prices are for.
      as_of: date of the list prices, in words.
    """

    region: str
    as_of: str
    vcpu_hour_usd: float
    memory_gb_hour_usd: float


LIST = Prices("us-central1", "date unknown: check them", 0.056, 0.003557)
"""Prices of the only region with known prices. Other regions cost up to about 50% more."""

OVERHEAD = 1.5
"""Factor on the measured processor time, for writing, Cloud Storage, and compression of network traffic."""

START_S = 240
"""Seconds from the creation of a VM, when billing starts, to its first row: it loads the image and the model."""

WORTH_A_VM_S = 300
"""Least work per VM, in seconds: the service adds VMs while there is work for them."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The estimated time and cost of a job.

    Attributes:
      vms: number of VMs that work at the same time.
      seconds: from the start of the first VM to the end of the job.
      usd: cost of processors and memory.
    """

    vms: int
    seconds: float
    usd: float


def estimate(measured: Measured, machine: Machine, threads: int, most_vms: int, prices: Prices) -> Estimate:
    """Estimate the time and cost of a job.

    Args:
      threads: per VM.
      most_vms: largest number of VMs.
    """
    vcpu_seconds = measured.rows * measured.cpu_s_a_row * OVERHEAD
    at_work = min(threads, machine.vcpus)
    vms = min(most_vms, max(1, math.ceil(vcpu_seconds / at_work / WORTH_A_VM_S)))
    seconds = START_S + vcpu_seconds / at_work / vms
    vm_hour = machine.vcpus * prices.vcpu_hour_usd + machine.memory_gb * prices.memory_gb_hour_usd
    return Estimate(vms, seconds, vms * seconds / 3600 * vm_hour)


def told(found: Estimate, measured: Measured, prices: Prices, region: str, own_prices: bool) -> Sequence[str]:
    """Describe an estimate and its assumptions, one line each."""
    if own_prices:
        priced = "prices of the job file"
    else:
        priced = f"list prices of {prices.region}, {prices.as_of}"
        if region != prices.region:
            priced += f", not of {region}: set engine.dataflow.vcpu_hour_usd and memory_gb_hour_usd"
    micros = 1e6 * measured.cpu_s_a_row
    return [
        f"estimate, not guaranteed: about {_time(found.seconds)} and {found.usd:,.2f} USD, with {found.vms} VMs",
        f"assumed: {measured.rows:,.0f} rows, from the size of the first rows; {micros:.2f} microseconds of processor "
        f"time per row, measured on this machine with {measured.tried:,} rows, times {OVERHEAD:g} for writing and "
        f"Cloud Storage; a vCPU as fast as a core of this machine; {START_S // 60} minutes to start a VM",
        f"priced: {prices.vcpu_hour_usd:g} USD per vCPU hour, {prices.memory_gb_hour_usd:g} USD per GB hour of memory "
        f"({priced}); without disks, shuffle, storage and network",
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
