"""At which size pictures go through the network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .choice import Choice
from .facts import DataFacts

__all__ = ["SHORTS", "choose_size", "size_of", "smaller", "tenth_side"]

# Short sides of pictures, px: what a CPU may choose from, and a GPU.
SHORTS = (192, 224, 256, 320, 384, 448, 480, 512, 576, 640)
GPU_SHORTS = (*SHORTS[3:], 736, 800, 896, 1024)
LEAST = {"fast": 256, "balanced": 384, "accurate": 448}
MOST = {"fast": 384, "balanced": 512, "accurate": 640}
GPU_LEAST = {"fast": 448, "balanced": 640, "accurate": 800}
GPU_MOST = {"fast": 640, "balanced": 800, "accurate": 1024}
# What nine of ten objects should have, px: three cells of the finest level. Six faces of dice, 15
# minutes on a CPU: AP50 94.8 with 25.6 px, 90.2 with 24 px, with time for a few more steps.
SMALL_OBJECT = 25.0
NEARLY = 0.97  # of it is as good, rather than the next larger size
ENLARGED = 1.25  # beyond this, the files have nothing more to show
# Of the short side in training: smaller pictures are faster, but not where small objects would be
# lost in them.
JITTER, SMALL_JITTER = (0.75, 0.875, 1.0), (0.875, 1.0, 1.125)


def choose_size(data: DataFacts, device: str, preset: str) -> Choice:
    """The smallest size at which nine of ten objects have 25 px, between bounds of the preset."""
    on_gpu = device == "cuda"
    shorts = GPU_SHORTS if on_gpu else SHORTS
    least = (GPU_LEAST if on_gpu else LEAST)[preset]
    limit = (GPU_MOST if on_gpu else MOST)[preset]
    tenth = tenth_side(data)
    wanted = NEARLY * SMALL_OBJECT / tenth
    of_files = max(shorts[0], data.short * ENLARGED)
    most = max(shorts[0], min(limit, of_files))
    allowed = [x for x in shorts if x <= most]
    short = next((x for x in allowed if x >= max(wanted, min(least, most))), allowed[-1])
    reached = tenth * short
    if reached < SMALL_OBJECT * NEARLY:
        why = "the pictures are no larger" if of_files <= limit else f"the limit of '{preset}'"
        reason = f"nine of ten objects have {reached:.0f} px or more, wanted {SMALL_OBJECT:.0f}: "
        return size_of(short, data, reason + why)
    return size_of(short, data, f"nine of ten objects have {reached:.0f} px or more then")


def _jitter(short: int, data: DataFacts) -> tuple[float, ...]:
    has_small = tenth_side(data) * short < SMALL_OBJECT / min(JITTER)
    return SMALL_JITTER if has_small else JITTER


def tenth_side(data: DataFacts) -> float:
    """The side that nine of ten objects exceed, as a share of their picture's short side."""
    return float(max(1e-6, sorted(data.sides)[len(data.sides) // 10]))


def smaller(short: int, data: DataFacts, epochs: float) -> Choice | None:
    """The next smaller size, where the time allows for too few ``epochs``; None from 256 px on."""
    below = [x for x in SHORTS if 256 <= x < short]
    if not below:
        return None
    return size_of(
        below[-1], data, f"smaller, since at {short} px there was time for {epochs:.1f} epochs"
    )


def size_of(short: int, data: DataFacts, reason: str, train: Sequence[int] | None = None) -> Choice:
    """The keys of a size, of which the user may have set the most important ones.

    The longer side is cut for odd pictures only.

    Args:
        short: short side of an evaluated picture.
        data: shapes and objects count.
        reason: why.
        train: short sides in training, around ``short`` by default.
    """
    if train is None:
        jitter = _jitter(short, data)
        train = sorted({round(x * short / 32) * 32 for x in jitter if x != 1.0} | {short})
    aspect = min(data.aspect, 2.0)
    long, long_train = (math.ceil(round(x * aspect) / 32) * 32 for x in (short, max(train)))
    return Choice(
        "input size",
        f"short side {short} px, in training {min(train)} to {max(train)}",
        reason,
        {
            "INPUT.MIN_SIZE_TRAIN": list(train),
            "INPUT.MAX_SIZE_TRAIN": long_train,
            "INPUT.MIN_SIZE_TEST": short,
            "INPUT.MAX_SIZE_TEST": long,
        },
    )
