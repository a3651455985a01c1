"""Errors that are for the user to read, and words for their messages.

Code at the boundary (commands, the train script) catches :class:`UserError` and
:class:`TrainingFailed` and prints their message; every other exception is a bug and keeps its
traceback. An error of the package derives from one of the two and from the builtin that it is by
its nature, so that ``except ValueError`` works, too.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence

__all__ = [
    "ConfigError",
    "ExistsError",
    "FileError",
    "InputError",
    "MissingFileError",
    "MissingPackageError",
    "TrainingFailed",
    "UserError",
    "did_you_mean",
    "listed",
    "one_line",
    "shown_error",
]


class UserError(Exception):
    """A mistake in the command line, the config or the data, in one sentence with its fix."""

    exit_code = 2

    def __str__(self) -> str:
        # A subclass that is a KeyError too would show the repr of its message.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class ConfigError(UserError, KeyError):
    """An unknown config key, or an unknown name as the value of one."""


class InputError(UserError, ValueError):
    """A value in the command line, the config or the data that cannot be used."""


class FileError(UserError, OSError):
    """A file or folder that cannot be read or written: ``FileError([errno, ]message)``."""

    def __str__(self) -> str:
        return str(self.args[-1])  # without the number


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that was named or is needed, and is not there."""


class ExistsError(UserError, FileExistsError):
    """A file or folder that is there and would be overwritten."""


class MissingPackageError(UserError, ImportError):
    """A Python package or module that was asked for and cannot be imported."""


class TrainingFailed(RuntimeError):
    """A training that cannot continue, in one or two sentences."""

    exit_code = 1


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def shown_error(error: BaseException) -> UserError | TrainingFailed | None:
    """What a user is to read of an exception, or None for a bug, whose traceback is to be seen.

    A plain ``OSError`` that names a file, or says that a disk is full, is not a bug: it becomes a
    :class:`FileError` of one sentence.
    """
    if isinstance(error, UserError | TrainingFailed):
        return error
    if not isinstance(error, OSError):
        return None
    if error.filename is None:
        return FileError(error.errno, str(error.strerror)) if error.errno in _NO_SPACE else None
    reason = error.strerror or type(error).__name__
    return FileError(error.errno, f"'{error.filename}': {reason}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'X'?"`` for the closest known name, or ``""``."""
    by_fold = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_fold, n=1, cutoff=0.6)
    return f" Did you mean '{by_fold[close[0]]}'?" if close else ""


def listed(names: Sequence[object], most: int = 10) -> str:
    """Return ``"a, b and 5 more"``: the first ``most`` names, and how many there are besides."""
    shown = ", ".join(str(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def count(number: int, what: str, plural: str = "") -> str:
    """Return ``"1 image"``, ``"2 images"``, with a ``plural`` ``"2 boxes"``."""
    return f"{number} {what}" if number == 1 else f"{number} {plural or what + 's'}"


def one_line(error: BaseException) -> str:
    """The message of an exception on one line; its type where it has no message."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split()) or type(error).__name__
