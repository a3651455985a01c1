"""A trained detector as a file for other programs, with all that is needed to use it there.

``job.py`` is the whole of an export: ``graph/`` is put into a file by ``files/``, ``folder.py``
writes what goes with it, and ``verify.py`` runs the file against PyTorch before anybody else does.
What runs an exported file in the place of a run is in
:mod:`retinanet_ext.inference.exported`.
"""

from __future__ import annotations

from .job import export
from .options import ExportOptions

__all__ = ["ExportOptions", "export"]
