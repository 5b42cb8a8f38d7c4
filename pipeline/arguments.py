"""The arguments that several commands of the command line share, and how help shows them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from inspect import Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from beam_score.pipeline.run.options import LaunchOptions

JobFile = Annotated[str, typer.Argument(metavar="JOB", help="The job file, YAML.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the job file; may be repeated."),
]
LogLevel = Annotated[str, typer.Option("--log-level", metavar="debug|info|warning|error", help="How much is logged.")]
LogFormat = Annotated[str, typer.Option("--log-format", metavar="text|json", help="How logs are written.")]
BeamOptions = Annotated[list[str] | None, typer.Argument(metavar="[-- BEAM OPTIONS]", help="Beam's own options.")]


@dataclasses.dataclass(frozen=True)
class LaunchArguments:
    """The arguments that `run` and `replay` share."""

    beam_options: BeamOptions = None
    overrides: Overrides = None
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard a run that has begun and is not finished, and start over.")
    ] = False
    replace: Annotated[bool, typer.Option("--replace", help="Publish over a finished run.")] = False
    keep_replaced: Annotated[
        bool,
        typer.Option(
            "--keep-replaced",
            help="With --replace: keep the old files beside the new ones, for readers that use the old manifest, until "
            "the next launch without this option, or clean. Readers of the whole folder then count rows twice.",
        ),
    ] = False
    replace_if_changed: Annotated[
        bool,
        typer.Option(
            "--replace-if-changed",
            help="If the input, the model or the job file has changed since the run in the output folder, replace that "
            "run (or discard it, if it is not finished); otherwise do what the command does without this option.",
        ),
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest instead of the summary.")] = False
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"

    def options(self) -> LaunchOptions:
        """Return the options of the launch."""
        return {
            "beam_options": self.beam_options or (),
            "restart": self.restart,
            "replace": self.replace,
            "keep_replaced": self.keep_replaced,
            "replace_if_changed": self.replace_if_changed,
        }


def with_launch_arguments(function: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `launch` of a command by the fields of `LaunchArguments`: typer makes an argument of the
    command line of each parameter."""
    own = [p for p in signature(function, eval_str=True).parameters.values() if p.name != "launch"]
    shared = signature(LaunchArguments, eval_str=True).parameters

    @functools.wraps(function)
    def called(**arguments: Any) -> None:
        launch = LaunchArguments(**{name: arguments.pop(name) for name in shared})
        function(**arguments, launch=launch)

    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *shared.values())]
    vars(called)["__signature__"] = Signature(parameters)
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _showing_flags(super().get_params(ctx))


class ServeCommand(Command):
    """The command `serve`, which takes the flags of TensorFlow Serving, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any("_" in argument.partition("=")[0] for argument in args if argument.startswith("--")):
            from beam_score.pipeline.serve.tfserving.flags import translated

            args = translated(args)
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """All commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _showing_flags(super().get_params(ctx))


def _showing_flags(params: list[Any]) -> list[Any]:
    """Show flags as flags in help, not as options with a value `<bool>`."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params
