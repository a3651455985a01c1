"""``--import``: modules of the user's, which register components, config keys and datasets."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from ..errors import InputError, MissingPackageError, one_line

__all__ = ["import_modules"]


def import_modules(names: Sequence[str]) -> None:
    """Import modules of the user's, from the current directory too.

    Raises:
        MissingPackageError: one of them, or what it imports, cannot be imported.
    """
    if names and os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        if name.endswith(".py") or os.sep in name:
            module = name.removesuffix(".py").strip("./").replace(os.sep, ".")
            raise InputError(f"--import takes the name of a module: write {module}, not {name}")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingPackageError(
                f"--import {name} failed: {one_line(error)}; the module must lie in the current "
                "directory or be installed, as must all that it imports"
            ) from error
