"""Files that a command is to write: whether it can, before it starts to work."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import ExistsError, FileError, MissingFileError

__all__ = ["check_free", "check_writable"]


def check_writable(option: str, path: str, make_folder: bool = True) -> None:
    """Check that ``path`` can be written.

    Args:
        option: that names the path.
        path: of a file that may be there or not.
        make_folder: whether the command makes the folders it lies in.

    Raises:
        MissingFileError: there is no folder, and the command makes none.
        FileError: the file or its folder cannot be written.
    """
    target = Path(path)
    folder = target.parent
    if not make_folder and not folder.is_dir():
        raise MissingFileError(f"{option} is '{path}', and there is no folder for it")
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    reason = ""
    if target.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"'{folder}' is no folder"
    elif not os.access(target if target.exists() else folder, os.W_OK):
        reason = "permission denied"
    elif not target.exists() or target.is_file():
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
    if reason:
        raise FileError(
            f"{option} is '{path}', which cannot be written ({reason}); choose another path"
        )


def check_free(option: str, path: str, force: bool) -> None:
    """Raise ExistsError if the file is there and ``--force`` is not given."""
    if os.path.exists(path) and not force:
        raise ExistsError(f"{option} is '{path}', which exists; name another file or pass --force")
