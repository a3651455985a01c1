"""Collects rows: takes works of both sides, measures them, tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .measure import Work, clocked_rounds
from .peers import DETECTRON2, OURS, TORCHVISION
from .process import OutOfMemory, measure_in_own_process
from .results import Row
from .settings import Settings

__all__ = ["Benchmark"]


class Benchmark:
    """Rows measured so far, and how far both sides were apart.

    Our sides are named OURS, and ``"<OURS>, <word>"`` for another way to do the same.

    Attributes:
        settings: of the whole run.
        say: gets one line when a measurement starts.
        rows: in the order measured.
        agreement: task -> what was compared -> largest difference.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None] = lambda line: None):
        self.settings = settings
        self.say = say
        self.rows: list[Row] = []
        self.agreement: dict[str, dict[str, float]] = {}

    def agree(self, task: str, *differences: dict[str, float]) -> None:
        """Note what functions of `agreement.py` have found."""
        known = self.agreement.setdefault(task, {})
        for one in differences:
            for what, value in one.items():
                known[what] = max(value, known.get(what, 0.0))

    def time(
        self,
        task: str,
        what: str,
        works: Mapping[str, Work],
        images: int = 0,
        note: str = "",
        absent: Mapping[str, str] | None = None,
    ) -> None:
        """Time the works in interleaved rounds; a row for each peer and each of our sides.

        Args:
            task: name of the task.
            what: the row's name.
            works: side -> work.
            images: per work, to show images per second; 0 shows the time.
            note: for the row.
            absent: sides that cannot be measured here -> why.
        """
        self.say(f"{task}: the numbers agree; timing {what}")
        samples = clocked_rounds(works, self.settings.repeats, self.settings.device)
        clock = {side: tuple(x.clock for x in taken) for side, taken in samples.items()}
        on_gpu = self.settings.device.startswith("cuda")
        cpu = {side: () if on_gpu else tuple(x.cpu for x in samples[side]) for side in samples}
        why = dict(absent or {})
        kind, images = ("rate", images) if images else ("time", 1)
        for peer in (DETECTRON2, TORCHVISION):
            for side in [*works, *why]:
                # torchvision's weights are others, so that only whole packages compare with it.
                of_peer = side == OURS or (peer == DETECTRON2 and side.startswith(OURS))
                if peer in works and of_peer:
                    row = Row(
                        task,
                        what + side.removeprefix(OURS),
                        kind,
                        peer,
                        clock[peer],
                        clock.get(side, ()),
                        images=images,
                        note=note,
                        theirs_cpu=cpu[peer],
                        ours_cpu=cpu.get(side, ()),
                        absent=why.get(side, ""),
                    )
                    self.rows.append(row)

    def memory(
        self,
        task: str,
        what: str,
        settings: Settings,
        ours: Sequence[str] = (OURS,),
        logits_bytes: int = 0,
        note: str = "",
    ) -> None:
        """Peak memory of the task's entry in `tasks.MEMORY_WORKS`, each side in its own process.

        Args:
            task: name of the task.
            what: the row's name, without "memory".
            settings: that the work runs with.
            ours: our sides, a row for each.
            logits_bytes: see :class:`Row`.
            note: for the rows.
        """
        theirs, method = self._peak(task, what, DETECTRON2, settings)
        for side in ours:
            samples, _ = self._peak(task, what, side, settings)
            self.rows.append(
                Row(
                    task,
                    f"{what}{side.removeprefix(OURS)}: memory",
                    "memory",
                    DETECTRON2,
                    theirs,
                    samples,
                    logits_bytes=logits_bytes,
                    note="; ".join(words for words in (note, method) if words),
                )
            )

    def _peak(
        self, task: str, what: str, side: str, settings: Settings
    ) -> tuple[tuple[float, ...], str]:
        """One sample in bytes, none without memory for it; and what is special about it."""
        self.say(f"{task}: memory of {what}, {side}, in a process of its own")
        try:
            peak = measure_in_own_process(task, side, settings)
        except OutOfMemory:
            self.say(f"{task}: {side} ran out of memory")
            return (), ""
        return (float(peak.num_bytes),), peak.method if "lower bound" in peak.method else ""
