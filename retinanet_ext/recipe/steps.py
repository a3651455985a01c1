"""How many pictures a step takes, and how far it goes."""

from __future__ import annotations

import math

from ..errors import count
from .choice import Choice
from .facts import Machine

__all__ = ["choose_batch", "choose_optimizer"]

# Bytes of training per picture and pixel, measured with a reserve: ResNet-50 with 256 channels, and
# the small networks.
PER_PIXEL = {"large": 9000, "small": 2500}
OF_MEMORY = 0.6  # share of it that a batch may take
# On a CPU a batch takes as long as its pictures one after the other, and in a short time more steps
# learn more: on dice, after 400 pictures, AP50 of the average was 20 with 4 at once, 30 with 2, 46
# with 1. Nothing else needs a larger batch: batch norm is frozen, the head has group norm.
CPU_BATCH = {"pretrained": 1, "scratch": 4}
GPU_BATCH = 16
ADAMW_LR = {"pretrained": (0.0007, 1), "scratch": (0.0015, 4)}  # and for how many pictures
SGD_LR = 0.01  # for 16, as the paper


def choose_batch(
    machine: Machine, is_large: bool, is_pretrained: bool, pixels: int, images: int
) -> Choice:
    """A power of two that fits into the memory.

    Args:
        machine: its memory counts.
        is_large: whether the network is ResNet-50.
        is_pretrained: whether its batch norm can be frozen; else it needs more pictures at once.
        pixels: of one picture.
        images: of the training set.
    """
    per_picture = PER_PIXEL["large" if is_large else "small"] * pixels
    fitting = max(1, int(OF_MEMORY * machine.memory / per_picture))
    kind = "pretrained" if is_pretrained else "scratch"
    wanted = CPU_BATCH[kind] if machine.device != "cuda" else GPU_BATCH
    wanted = max(1, min(wanted, images))
    per_device = 2 ** int(math.log2(min(fitting, wanted)))
    batch = per_device * machine.gpus
    limit = f"{machine.memory / 2**30:.0f} GB of memory" if fitting < wanted else ""
    few = f"the set has {count(images, 'picture')}" if wanted == images else ""
    usual = "many small steps" if machine.device != "cuda" else "as the paper"
    each = f"{per_device} on each of {machine.gpus} GPUs; " if machine.gpus > 1 else ""
    workers = max(1, min(8, machine.cores // 2)) if machine.device == "cuda" else 1
    return Choice(
        "batch",
        count(batch, "picture"),
        each + (limit or few or usual),
        {"SOLVER.IMS_PER_BATCH": batch, "DATALOADER.NUM_WORKERS": workers},
    )


def choose_optimizer(is_large: bool, is_pretrained: bool, batch: int) -> Choice:
    """SGD by the linear rule for ResNet-50, AdamW by the square root for the small networks."""
    common = {
        "SOLVER.LR_SCHEDULER_NAME": "OneCycleLR",
        "SOLVER.STEPS": [],
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
    }
    if is_large:
        rate = SGD_LR * batch / 16
        keys = {
            "SOLVER.OPTIMIZER": "SGD",
            "SOLVER.ONE_CYCLE_PCT_START": 0.1,
            "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 10.0,
        }
        reason = f"{SGD_LR:g} for 16 pictures, in proportion"
    else:
        base, of_batch = ADAMW_LR["pretrained" if is_pretrained else "scratch"]
        rate = base * math.sqrt(batch / of_batch)
        keys = {
            "SOLVER.OPTIMIZER": "AdamW",
            "SOLVER.WEIGHT_DECAY": 0.05,
            "SOLVER.ONE_CYCLE_PCT_START": 0.15 if is_pretrained else 0.3,
            "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 5.0,
        }
        reason = f"{base:g} for {count(of_batch, 'picture')}, by the square root"
    rate = float(f"{rate:.3g}")
    return Choice(
        "learning rate",
        f"{keys['SOLVER.OPTIMIZER']}, {rate:g}, one cycle",
        reason,
        {**common, **keys, "SOLVER.BASE_LR": rate},
    )
