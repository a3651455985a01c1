"""Peak memory of one piece of work, in a process that does nothing else.

``python -m retinanet_ext.benchmark.worker`` reads its order from stdin and answers on stdout, both
in json.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import torch

from .measure import Peak, peak_memory
from .settings import Settings
from .tasks.build import MEMORY_WORKS

__all__ = ["main", "measure"]


def measure(name: str, side: str, settings: Settings) -> Peak:
    """Peak memory of the work ``name`` of one side, above its model and its inputs.

    Args:
        name: an entry of `tasks.MEMORY_WORKS`.
        side: as that entry takes it.
        settings: of the work.
    """
    memory_work = MEMORY_WORKS[name]
    # Libraries load code when they first compute, which belongs to no work.
    memory_work.build(settings.tiny(), side)()
    work = memory_work.build(settings, side)
    return peak_memory(work, settings.device, memory_work.warm_ups)


def main() -> None:
    """Carry out the order on stdin."""
    order = json.loads(sys.stdin.read())
    settings = Settings.from_json(order["settings"])
    torch.set_num_threads(settings.threads)
    peak = measure(order["name"], order["side"], settings)
    print(json.dumps(dataclasses.asdict(peak)), flush=True)


if __name__ == "__main__":
    main()
