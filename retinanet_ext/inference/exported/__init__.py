"""A detector that was exported to a file, used in the place of a trained model.

``sidecar.py`` reads the ``model.json`` beside the file, ``engines.py`` runs the file, ``model.py``
gives it the interface of Detectron2's models. What is in ``standalone/`` is copied into the folder
of an export, and needs NumPy and Pillow only.
"""

from __future__ import annotations

from .sidecar import Sidecar, cfg_of_export, is_export

__all__ = ["Sidecar", "cfg_of_export", "is_export"]
