"""Set-up, training, resuming and evaluating: what ``train_net.py`` is made of.

Functions with the name of their module are imported from there: ``engine.setup.setup``,
``engine.dry_run.dry_run``.
"""

from __future__ import annotations

from .eval_only import evaluate
from .launch.launching import launch_job
from .trainer import RetinaNetTrainer

__all__ = ["RetinaNetTrainer", "evaluate", "launch_job"]
