"""CenterNet; importing this registers it: ``--import projects.CenterNet``."""

from . import centernet  # noqa: F401
