"""Beam without its repetitions: hundreds of small pipelines in one process cost less.

For each transform of each pipeline, Beam inspects the same functions some ten times, and builds the same argument
parsers again to read one option. In a pipeline over a few rows this is a third of all work. The answers depend on the
function, and on the options class and its flags, so each is computed once.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable

import apache_beam.transforms.core as core
from apache_beam.options.pipeline_options import PipelineOptions


def remember() -> None:
    """Let Beam in this process compute each answer once."""
    core.get_function_args_defaults = _by_function(core.get_function_args_defaults)
    PipelineOptions.view_as = _by_flags(PipelineOptions)


def _by_function(arguments_and_defaults: Callable[[Callable], tuple[list, list]]) -> Callable:
    """Return a version that inspects a function once, and a method once for all its instances."""
    known: weakref.WeakKeyDictionary[Callable, dict[bool, tuple[list, list]]] = weakref.WeakKeyDictionary()

    def remembered(function: Callable) -> tuple[list, list]:
        bound = inspect.ismethod(function)
        plain = function.__func__ if bound else function
        if not inspect.isfunction(plain):
            return arguments_and_defaults(function)
        found = known.setdefault(plain, {})
        if bound not in found:
            found[bound] = arguments_and_defaults(function)
        arguments, defaults = found[bound]
        return list(arguments), list(defaults)

    return remembered


def _by_flags(base: type[PipelineOptions]) -> Callable:
    """Return a version of `view_as` that parses the same flags once for each class."""
    parsed: dict[tuple[type, tuple[str, ...]], PipelineOptions] = {}

    def view_as(self: PipelineOptions, cls: type[PipelineOptions]) -> PipelineOptions:
        key = cls, tuple(self._flags)
        if key not in parsed:
            parsed[key] = cls(list(self._flags))
        view = base.__new__(cls)
        view._flags = self._flags
        view._visible_options = copy.deepcopy(parsed[key]._visible_options)
        for name, value in vars(view._visible_options).items():
            self._all_options.setdefault(name, value)
        view._all_options = self._all_options
        return view

    return view_as
