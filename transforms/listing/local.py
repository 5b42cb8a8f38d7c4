"""Lists the local files that a pattern matches, as `glob` does; paths that cannot be read are problems, not skipped."""

from __future__ import annotations

import dataclasses
import errno
import fnmatch
import functools
import os
import re
import stat
from collections.abc import Callable, Sequence

from beam_score.transforms.common.names import near_miss
from beam_score.transforms.listing.patterns import MAGIC, NoFiles, fits, hidden_parts, is_hidden
from beam_score.transforms.stores.local_file import calls, entries_of, retried, status_of

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclasses.dataclass(frozen=True)
class Found:
    """A file that a pattern matches.

    Attributes:
      path: as the pattern gives it.
      real: with all links resolved.
      stat: of the file itself, links followed.
    """

    path: str
    real: str
    stat: os.stat_result


class Listing:
    """The matches of a pattern, at one moment.

    Args:
      pattern: a file, a folder (the files directly in it), or a pattern; `**` matches any number of folders.
      outputs: real paths of files that the job is going to write.

    Attributes:
      files: the regular files.
      folders: folders that match; they are skipped, as patterns match files.
      problems: a sentence for each path that cannot be read, or is not a file.
      own: the first of `outputs` that the pattern would match once it exists; None for none.

    Raises:
      NoFiles: nothing matches.
      OSError: the metadata of the pattern's own path cannot be read.
      ReadFails: the system failed.
    """

    def __init__(self, pattern: str, outputs: Sequence[str] = ()):
        self.files: list[Found] = []
        self.folders: list[str] = []
        self.problems: list[str] = []
        self.own: str | None = None
        self._outputs = outputs
        self._seen: set[tuple[str, tuple[str, ...]]] = set()
        self._passed_over = self._is_deep = False
        if not self._is_named_outright(pattern):
            self._match(pattern)
        if not (self.files or self.problems or self.own):
            raise NoFiles(self._why_none(pattern))

    def _is_named_outright(self, pattern: str) -> bool:
        """Match a path that exists literally, even with * or [ in its name; return False for any other."""
        try:
            found = status_of(pattern)
        except (FileNotFoundError, NotADirectoryError):
            if target := _link_to_nothing(pattern):
                self._tell(f"{pattern} is a link to {target}, which does not exist: fix or remove the link")
                return True
        except ValueError as error:  # a NUL byte
            raise NoFiles(f"{pattern!r} is not a path: {error}") from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG or not MAGIC.search(pattern):
                raise
        else:
            if stat.S_ISDIR(found.st_mode):
                self._match_below(pattern, ["*"])
            else:
                self._take(pattern, found, lambda: _real_path(pattern))
            return True
        if not MAGIC.search(pattern):
            raise NoFiles(f"{pattern} does not exist{_hint(pattern)}")
        return False

    def _match(self, pattern: str) -> None:
        before, _ = MAGIC.split(pattern, maxsplit=1)
        fixed = before[: before.rfind(os.sep) + 1]
        self._match_below(fixed, [part for part in pattern[len(fixed) :].split(os.sep) if part])
        if pattern.endswith(os.sep):
            self.files = []  # a trailing slash matches only folders

    def _match_below(self, folder: str, wanted: Sequence[str]) -> None:
        self._wanted = "/".join(wanted)
        self._shows_hidden = bool(hidden_parts(self._wanted))
        self._is_deep = "**" in wanted  # files in matching folders match, too
        try:
            real = _real_path(folder or os.curdir)
        except (FileNotFoundError, NotADirectoryError):
            raise NoFiles(f"{folder}{self._wanted}: the folder {folder!r} does not exist") from None
        self._look_into(folder, real, tuple(wanted))

    def _look_into(self, folder: str, real: str, wanted: tuple[str, ...]) -> None:
        """Match the entries of a folder.

        Args:
          folder: its path as the pattern gives it; "" for the current one.
          real: the same with all links resolved.
          wanted: the parts of the pattern that are still to be matched.
        """
        if (real, wanted) in self._seen:  # reached through a link: a loop, or the same files under another name
            return
        self._seen.add((real, wanted))
        self._look_for_outputs(real, wanted)
        first, *rest = wanted
        if not MAGIC.search(first):
            self._follow(folder, real, first, tuple(rest))
            return
        is_any_depth = first == "**"
        if is_any_depth and rest:
            self._look_into(folder, real, tuple(rest))
        entries = self._entries(folder)
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if entry.name.startswith(".") and not first.startswith("."):
                continue
            if not is_any_depth and not _matcher(first)(entry.name):
                continue
            if entry.name.startswith(("_", ".")) and not self._shows_hidden:
                self._passed_over = True
                continue
            if is_any_depth:
                if self._is_folder(entry, path):
                    self._look_into(path, _real_entry(entry, real), wanted)
                elif not rest:
                    self._take_entry(entry, path, real)
            elif rest:
                if self._is_folder(entry, path):
                    self._look_into(path, _real_entry(entry, real), tuple(rest))
            else:
                self._take_entry(entry, path, real)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Return the entries of a folder, links last, so that a file found twice gets the path without a link."""
        try:
            return sorted(entries_of(folder or os.curdir), key=lambda entry: (entry.is_symlink(), entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return []  # gone since it was listed
        except OSError as error:
            self._tell(f"{folder or os.curdir}: {error.strerror}: its files cannot be listed")
            return []

    def _follow(self, folder: str, real: str, name: str, rest: tuple[str, ...]) -> None:
        """Match a literal part of the pattern, below a part with wildcards."""
        path = os.path.join(folder, name)
        found = self._status(path)
        if found is None:
            return
        if rest:
            if stat.S_ISDIR(found.st_mode):
                self._look_into(path, _real_path(path), rest)
        else:
            self._take(path, found, lambda: _real_path(path))

    def _is_folder(self, entry: os.DirEntry[str], path: str) -> bool:
        if not entry.is_symlink():
            return retried(path, lambda: entry.is_dir(follow_symlinks=False))
        found = self._status(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def _take_entry(self, entry: os.DirEntry[str], path: str, folder: str) -> None:
        found = self._status(path)
        if found is not None:
            self._take(path, found, lambda: _real_entry(entry, folder))

    def _take(self, path: str, found: os.stat_result, real: Callable[[], str]) -> None:
        """Record a path that matches the whole pattern."""
        if stat.S_ISREG(found.st_mode):
            self.files.append(Found(path, real(), found))
        elif stat.S_ISDIR(found.st_mode):
            if not self._is_deep:
                self.folders.append(path)
        else:
            kind = next((kind for is_one, kind in _KINDS if is_one(found.st_mode)), "not a file")
            self._tell(f"{path} is {kind}, expected a regular file: remove it, or use a narrower pattern")

    def _tell(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _status(self, path: str) -> os.stat_result | None:
        """Return `os.stat`; None if it fails. The failure is a problem, unless the path does not exist."""
        try:
            return status_of(path)
        except (FileNotFoundError, NotADirectoryError):
            if target := _link_to_nothing(path):
                self._tell(f"{path} is a link to {target}, which does not exist: fix or remove the link")
        except OSError as error:
            self._tell(f"{path}: {error.strerror}")
        return None

    def _look_for_outputs(self, real: str, wanted: Sequence[str]) -> None:
        for path in self._outputs if self.own is None else ():
            if path.startswith(os.path.join(real, "")):
                below = os.path.relpath(path, real)
                if fits(below.split(os.sep), wanted) and (self._shows_hidden or not is_hidden(below, "")):
                    self.own = path
                    return

    def _why_none(self, pattern: str) -> str:
        skipped = " (names that begin with _ or . are skipped)" if self._passed_over else ""
        folders = f"; {self.folders[0]} is a folder: add /* for the files in it" if self.folders else ""
        return f"no file matches {pattern}{skipped}{folders}; relative patterns start at {os.getcwd()}"


@functools.cache
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(pattern)).match


def _real_path(path: str) -> str:
    return retried(path, lambda: calls().real_path(path))


def _real_entry(entry: os.DirEntry[str], folder: str) -> str:
    """Return an entry's real path, given the real path of its folder."""
    path = os.path.join(folder, entry.name)
    return _real_path(path) if entry.is_symlink() else path


def _is_link(path: str) -> bool:
    return stat.S_ISLNK(retried(path, lambda: calls().lstat(path)).st_mode)


def _link_to_nothing(path: str) -> str | None:
    """Return the target of a link; None if the path is not a link."""
    try:
        return os.readlink(path) if _is_link(path) else None
    except OSError:
        return None


def _hint(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        return near_miss(name, [entry.name for entry in entries_of(folder or os.curdir)])
    except (FileNotFoundError, NotADirectoryError):
        return f"; the folder {folder!r} does not exist"
    except OSError:  # only the hint is missing
        return ""
