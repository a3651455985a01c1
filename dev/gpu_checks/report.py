"""Results of the GPU check: one line each as soon as it is known, json, a table at the end."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PREFIX", "Job", "Result", "Results"]

PREFIX = "GPU_CHECK "
"""Before the json of a result on a job's stdout."""


@dataclass
class Result:
    """One line of the table.

    Attributes:
        section: "correct", "fast" or "whole".
        name: what was checked or measured.
        status: "ok", "FAIL", "skipped" or "" for a figure.
        text: for a reader, one line.
        figures: numbers by name; seconds and bytes unless the name says something else.
    """

    section: str
    name: str
    status: str = ""
    text: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


class Job:
    """What runs in a process of its own; prints its results, and knows when to end."""

    def __init__(self, section: str, device: str, tiny: bool, seconds: float):
        """
        Args:
            section: of the results.
            device: "cuda" or "cpu".
            tiny: do everything with small numbers, to try the script itself.
            seconds: from now on; what would begin later is left out.
        """
        self.section = section
        self.device = device
        self.tiny = tiny
        self.deadline = time.monotonic() + seconds

    def tell(self, name: str, status: str = "", text: str = "", **figures: Any) -> None:
        """Print a result."""
        result = Result(self.section, name, status, text, figures)
        print(PREFIX + json.dumps(asdict(result)), flush=True)

    def tell_pair(
        self, name: str, seconds: tuple[float, float], memory: Sequence[int] = (), **figures: Any
    ) -> None:
        """Print how ours compares with theirs.

        Args:
            name: of the measurement.
            seconds: theirs and ours.
            memory: bytes of both; empty where it was not measured.
            figures: further ones.
        """
        theirs, ours = seconds
        text = f"{theirs * 1e3:.2f} -> {ours * 1e3:.2f} ms, {theirs / ours:.2f}x faster"
        if memory:
            their_bytes, our_bytes = memory
            text += f"; memory {their_bytes / 2**20:.0f} -> {our_bytes / 2**20:.0f} MiB"
            text += f" ({our_bytes / max(1, their_bytes):.2f}x)"
            figures |= {"their_bytes": their_bytes, "our_bytes": our_bytes}
        self.tell(name, text=text, theirs=theirs, ours=ours, **figures)

    def has_time(self, name: str) -> bool:
        """Whether there is time left; tells what is left out otherwise."""
        if time.monotonic() < self.deadline:
            return True
        self.tell(name, "skipped", "no time left")
        return False

    @contextlib.contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Turn an error inside the block into a result; the job continues."""
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            first = (str(error).strip().splitlines() or [""])[0]
            self.tell(name, "FAIL", f"{type(error).__name__}: {first[:300]}")


class Results:
    """All results so far, written to a json file after each."""

    def __init__(self, json_file: Path | None):
        self.json_file = json_file
        self.facts: dict[str, Any] = {}
        self.rows: list[Result] = []
        self.start = time.monotonic()

    def add(self, result: Result) -> None:
        """Keep, print and write it."""
        self.rows.append(result)
        seconds = time.monotonic() - self.start
        print(f"[{seconds:5.0f} s] {_line(result)}", flush=True)
        if self.json_file is not None:
            content = {**self.facts, "results": [asdict(row) for row in self.rows]}
            part = self.json_file.with_suffix(".part")
            part.write_text(json.dumps(content, indent=1) + "\n")
            part.replace(self.json_file)

    @property
    def failed(self) -> list[Result]:
        """Those that went wrong."""
        return [row for row in self.rows if row.status == "FAIL"]

    def table(self) -> str:
        """Everything but single tests that passed, in the order of the sections."""
        lines = []
        for section in dict.fromkeys(row.section for row in self.rows):
            rows = [row for row in self.rows if row.section == section]
            lines.append(f"== {section}")
            lines += [f"  {_line(row, section=False)}" for row in rows]
        seconds = time.monotonic() - self.start
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        lines.append(f"== {facts}; {len(self.failed)} failed; {seconds:.0f} s")
        return "\n".join(lines)


def _line(row: Result, section: bool = True) -> str:
    name = f"{row.section}: {row.name}" if section else row.name
    return "  ".join(part for part in (f"{row.status or '-':7}", name, row.text) if part)
