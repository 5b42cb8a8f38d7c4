"""`engine.dataflow` of a job file. The engine reports missing settings, since they may be given after `--`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pydantic

from beam_score.runners.settings import dataflow_names as names
from beam_score.runners.settings.layout import Layout
from beam_score.transforms.common.settings import Strict


class DataflowSettings(Strict):
    """Settings of a Dataflow job: its location, machines, network, code and service account."""

    project: str | None = None
    region: str | None = None
    staging_location: str | None = None
    temp_location: str | None = None
    job_name: str = "beam-score"
    machine_type: str = "n2-standard-4"
    num_workers: int | None = pydantic.Field(default=None, ge=1)
    max_workers: int = pydantic.Field(default=20, ge=1)
    disk_gb: int | None = pydantic.Field(default=None, ge=10)
    service_account: str | None = None
    network: str | None = None
    subnetwork: str | None = None
    public_ips: bool | None = None
    labels: Mapping[str, str] = {}
    setup_file: str | None = None
    image: str | None = None
    template_location: str | None = None
    wait: bool = True
    on_interrupt: Literal["leave", "cancel"] = "leave"
    vcpu_hour_usd: float | None = pydantic.Field(default=None, gt=0)
    memory_gb_hour_usd: float | None = pydantic.Field(default=None, gt=0)

    @pydantic.field_validator("labels", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        # YAML reads 2026 as a number; Dataflow's labels are text.
        whole = (str, int)
        if not isinstance(value, Mapping):
            return value
        return {k: str(v) if isinstance(v, whole) and not isinstance(v, bool) else v for k, v in value.items()}

    @pydantic.model_validator(mode="after")
    def _each(self) -> DataflowSettings:
        found = []
        for name, problem in PROBLEMS.items():
            value = getattr(self, name)
            if value is not None and (why := problem(value)):
                found.append(f"{name}: {why}")
        found += [f"labels: {why}" for why in names.label_problems(dict(self.labels))]
        if self.num_workers and self.num_workers > self.max_workers:
            found.append(f"num_workers is {self.num_workers}, more than max_workers, {self.max_workers}")
        if found:
            raise ValueError("; ".join(found))
        return self

    @property
    def machine_bytes(self) -> int:
        """Memory of a VM in bytes."""
        return int(names.machine(self.machine_type).memory_gb * (1 << 30))

    def layout(self, workers: int | Literal["auto"]) -> Layout:
        """Return the layout with the largest number of VMs: one process per VM, with `workers` threads, or a thread
        per vCPU."""
        vcpus = names.machine(self.machine_type).vcpus
        return Layout(self.max_workers, vcpus if workers == "auto" else workers, vcpus)


def _machine_problem(value: str) -> str | None:
    try:
        names.machine(value)
    except ValueError as error:
        return str(error)
    return None


def _image_problem(value: str) -> str | None:
    if any(c.isspace() for c in value) or "://" in value or "/" not in value:
        return f"{value!r} is not an image: write REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG"
    return None


PROBLEMS: Mapping[str, Callable[[str], str | None]] = {
    "project": names.project_problem,
    "region": names.region_problem,
    "job_name": names.job_name_problem,
    "machine_type": _machine_problem,
    "service_account": names.account_problem,
    "image": _image_problem,
}
"""By setting, the function that returns why a value is invalid."""
