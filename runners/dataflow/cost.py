"""What a job would take on Dataflow, and cost: an estimate, with all that it assumes."""

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
      region: that they are for.
      as_of: when they were list prices, in words.
    """

    region: str
    as_of: str
    vcpu_hour_usd: float
    memory_gb_hour_usd: float


LIST = Prices("us-central1", "date unknown: check them", 0.056, 0.003557)
"""The one region that is known here. Others cost up to some half more."""

OVERHEAD = 1.5
"""What a job takes of processors, over what is measured: writing, Cloud Storage, compression on the wire."""

START_S = 240
"""From the creation of a VM, which is paid from there on, to its first row: the image is loaded, and the model."""

WORTH_A_VM_S = 300
"""The service adds VMs while there is work for them; one that would have less than this is not counted."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Attributes:
    vms: that are at work at once.
    seconds: from the first VM to the end.
    usd: for processors and memory.
    """

    vms: int
    seconds: float
    usd: float


def estimate(measured: Measured, machine: Machine, threads: int, most_vms: int, prices: Prices) -> Estimate:
    """Time and cost of a job.

    Args:
      threads: of a VM.
      most_vms: that there may be.
    """
    vcpu_seconds = measured.rows * measured.cpu_s_a_row * OVERHEAD
    at_work = min(threads, machine.vcpus)
    vms = min(most_vms, max(1, math.ceil(vcpu_seconds / at_work / WORTH_A_VM_S)))
    seconds = START_S + vcpu_seconds / at_work / vms
    vm_hour = machine.vcpus * prices.vcpu_hour_usd + machine.memory_gb * prices.memory_gb_hour_usd
    return Estimate(vms, seconds, vms * seconds / 3600 * vm_hour)


def told(found: Estimate, measured: Measured, prices: Prices, region: str, own_prices: bool) -> Sequence[str]:
    """An estimate in sentences, a line each."""
    if own_prices:
        priced = "prices of the job file"
    else:
        priced = f"list prices of {prices.region}, {prices.as_of}"
        if region != prices.region:
            priced += f", and not of {region}: set engine.dataflow.vcpu_hour_usd and memory_gb_hour_usd"
    micros = 1e6 * measured.cpu_s_a_row
    return [
        f"estimate, no promise: about {_time(found.seconds)} and {found.usd:,.2f} USD, with {found.vms} VMs at work",
        f"assumed: {measured.rows:,.0f} rows, by the size of the first; {micros:.2f} microseconds of processor time a "
        f"row, measured here on {measured.tried:,} rows, times {OVERHEAD:g} for writing and Cloud Storage; a vCPU as "
        f"fast as a core here; {START_S // 60} minutes until a VM is at work",
        f"priced: {prices.vcpu_hour_usd:g} USD a vCPU hour, {prices.memory_gb_hour_usd:g} a GB hour of memory "
        f"({priced}); without disks, shuffle, storage and network",
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
