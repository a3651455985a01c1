"""Measures this package's RetinaNet against Detectron2's and torchvision's, side by side.

`tasks.py` lists what is measured; each task first shows that both sides give the same numbers.
"""

from .report import as_json, describe_run, table
from .results import Disagreement, Row
from .runner import Benchmark
from .settings import Settings
from .tasks.build import run_tasks, task_names

__all__ = [
    "Benchmark",
    "Disagreement",
    "Row",
    "Settings",
    "as_json",
    "describe_run",
    "run_tasks",
    "table",
    "task_names",
]
