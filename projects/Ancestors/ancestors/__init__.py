"""Detectors that the paper's figure 2 and table 2 stand RetinaNet beside; importing registers them.

``python train_net.py --import projects.Ancestors.ancestors --config-file ...`` from the root of the
repository, or ``--import ancestors`` with this folder's parent on ``PYTHONPATH``.
"""

from . import ssd, yolo

__all__ = ["ssd", "yolo"]
