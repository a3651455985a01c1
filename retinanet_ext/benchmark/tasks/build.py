"""What can be measured, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from detectron2.config import CfgNode

from ..measure import Work
from ..peers import available_variants
from ..runner import Benchmark
from ..settings import Settings
from .coco_evaluation import run_evaluation
from .components import labelling_work, loss_work, run_decode, run_labelling, run_loss
from .inference import run_inference
from .many_classes import many_classes_work, run_many_classes
from .predicting import run_predict
from .training_loop import run_training_loop
from .training_step import run_training_step, training_step_work

__all__ = ["MEMORY_WORKS", "run_tasks", "task_names"]

TASKS: dict[str, Callable[[Benchmark], None]] = {
    "loss": run_loss,
    "labelling": run_labelling,
    "decode": run_decode,
    "training-step": run_training_step,
    "training-loop": run_training_loop,
    "inference": run_inference,
    "predict": run_predict,
    "evaluation": run_evaluation,
    "many-classes": run_many_classes,
}

VARIED: dict[str, Callable[..., None]] = {
    "training-step": run_training_step,
    "inference": run_inference,
}


@dataclass(frozen=True)
class MemoryWork:
    """Work whose memory is measured in a process of its own.

    Attributes:
        build: takes settings and side, returns the work.
        warm_ups: calls before the one that is measured.
    """

    build: Callable[[Settings, str], Work]
    warm_ups: int = 0


MEMORY_WORKS = {
    "loss": MemoryWork(loss_work),
    "labelling": MemoryWork(labelling_work),
    "training-step": MemoryWork(training_step_work, warm_ups=1),
    "many-classes": MemoryWork(many_classes_work),
}


def task_names(cfg: CfgNode) -> list[str]:
    """Names of all tasks, in the order in which they run."""
    return list(_tasks(cfg))


def run_tasks(bench: Benchmark, names: Sequence[str]) -> None:
    """Run the named tasks; their rows are in ``bench``, also when this is interrupted.

    Raises:
        Disagreement: both sides give different numbers; says which, and by how much.
    """
    tasks = _tasks(bench.settings.cfg)
    chosen = [name for name in tasks if name in names]
    for i, name in enumerate(chosen, start=1):
        bench.say(f"[{i}/{len(chosen)}] {name}")
        tasks[name](bench)


def _tasks(cfg: CfgNode) -> dict[str, Callable[[Benchmark], None]]:
    tasks: dict[str, Callable[[Benchmark], None]] = {}
    for name, task in TASKS.items():
        tasks[name] = task
        for variant in available_variants(cfg) if name in VARIED else ():
            tasks[f"{name}-{variant.name}"] = partial(VARIED[name], variant=variant)
    return tasks
