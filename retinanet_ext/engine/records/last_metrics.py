"""The last results in a run's ``metrics.json``."""

from __future__ import annotations

import json
import os

__all__ = ["last_metrics"]


def last_metrics(path: str | os.PathLike[str], *required: str) -> dict[str, float]:
    """The last line of a ``metrics.json`` that has all of the ``required`` names.

    A line that a kill cut short is passed over; numbers that are not finite, which are ``null`` in
    the file, are left out.

    Args:
        path: of the file.
        required: names such as ``bbox/AP``.

    Returns:
        The numbers by name, ``iteration`` among them; {} where no line has all of them, or there is
        no file.
    """
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and all(name in values for name in required):
            return {name: value for name, value in values.items() if value is not None}
    return {}
