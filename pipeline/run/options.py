"""The options of a launch, shared by the commands `run` and `replay`, and by the functions of the same names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from beam_score.pipeline.run.status import Status


class LaunchOptions(TypedDict, total=False):
    """The options of a launch; `pipeline.commands.run` describes them. An option that is missing is off."""

    beam_options: Sequence[str]
    restart: bool
    replace: bool
    keep_replaced: bool
    replace_if_changed: bool
    show_progress: Callable[[Status], None] | None


def refuse_unknown(options: LaunchOptions) -> None:
    """Raise TypeError if a name is not an option of a launch, as Python does for any other unknown argument."""
    for name in options.keys() - LaunchOptions.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument {name!r}")
