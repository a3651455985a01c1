"""The config files that come with the package, found by name.

In a checkout ``retinanet_ext/configs`` is a link to the repository's ``configs``; in an installed
package it is a folder of its own.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ..errors import MissingFileError, listed

__all__ = ["CONFIGS", "config_names", "find_config"]

CONFIGS = (Path(__file__).parents[1] / "configs").resolve()


def config_names() -> list[str]:
    """Names that :func:`find_config` knows: ``"quickstart.yaml"``, ``"scales/..."``."""
    return sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


def find_config(name: str | os.PathLike[str]) -> str:
    """Return the path of a config file: of ``name`` itself, or of the shipped config of that name.

    Args:
        name: a path; where there is no such file, a name of :func:`config_names`, also with
            ``configs/`` in front, as it is in a checkout.

    Raises:
        MissingFileError: there is neither; lists the names that come close.
    """
    path = os.fspath(name)
    if os.path.isfile(path):
        return path
    names = config_names()
    shipped = Path(path).as_posix().removeprefix("configs/")
    if shipped in names:
        return str(CONFIGS / shipped)
    raise MissingFileError(
        f"config file '{path}' does not exist (from {os.getcwd()}) and is no shipped config; "
        f"{_close_names(shipped, names)}"
    )


def _close_names(name: str, names: list[str]) -> str:
    """The shipped configs that ``name`` may stand for; all of them where none is close."""
    of_stem = {Path(n).stem.lower(): n for n in names}
    close = difflib.get_close_matches(Path(name).stem.lower(), of_stem, n=3, cutoff=0.6)
    if close:
        return "did you mean " + ", ".join(f"'{of_stem[stem]}'" for stem in close) + "?"
    own = ("quickstart.yaml", "retinanet_")  # before the other detectors

    def rank(name: str) -> tuple[bool, bool, bool, str]:
        return "/" in name, name.startswith("Base-"), not name.startswith(own), name

    ordered: list[str] = sorted(names, key=rank)
    return f"shipped are {listed(ordered)}"
