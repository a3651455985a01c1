"""Prove the package on a GPU: right, fast, whole. One call, one table, at most 6 minutes.

    python dev/gpu_check.py --json gpu.json

Section "correct" runs the tests marked cuda, "fast" measures beside Detectron2 with the same
weights and precision, "whole" trains, kills and resumes. Every job is a process of its own, so a
failure ends nothing else; nothing but "fast" runs while it measures. ``--device cpu --tiny`` tries
the script itself where there is no GPU. Needs no network and, with the quickstart's pictures
already there, no OpenCV.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = ("correct", "fast", "whole")
LIMIT = 350.0  # seconds
SHARES = {"training": 4, "inference": 3, "parts": 3, "loader": 1}
"""Of the time that is left for what runs with nothing beside it."""


def jobs_of(only: Sequence[str], device: str) -> tuple[dict[str, str], dict[str, str]]:
    """Names of jobs and their sections: those that run side by side, then one after the other."""
    from gpu_checks.correct import GROUPS
    from gpu_checks.fast_models import AHEAD

    together: dict[str, str] = {}
    alone: dict[str, str] = {}
    precisions = ("float32", "bfloat16", "float16") if device == "cuda" else ("float32", "bfloat16")
    if "correct" in only:
        together |= {f"tests-{group}": "correct" for group in GROUPS}
    if "whole" in only:
        together |= {f"quickstart-{p}": "whole" for p in precisions}
        together |= {"resume": "whole"}
        alone |= {"loader": "whole"}
    if "fast" in only:
        for kind, cases in AHEAD.items():
            together |= {f"ahead-{kind}-{i}": "fast" for i in range(len(cases))}
        alone |= {"training": "fast", "inference": "fast", "parts": "fast"}
    return together, alone


def run_job(
    name: str, section: str, device: str, tiny: bool, seconds: float, tests: str = ""
) -> None:
    """Carry out one job in this process."""
    from gpu_checks import correct, fast_models, fast_parts, whole
    from gpu_checks.report import Job

    job = Job(section, device, tiny, seconds)
    kind, _, rest = name.partition("-")
    what, _, index = rest.partition("-")
    works: dict[str, Callable[[], None]] = {
        "tests": partial(correct.run_tests, job, rest, tests),
        "quickstart": partial(whole.train_quickstart, job, rest),
        "ahead": lambda: fast_models.compile_ahead(job, what, int(index)),
        "data": partial(whole.prepare_data, job),
        "resume": partial(whole.resume_exactly, job),
        "loader": partial(whole.loader_speed, job),
        "parts": partial(fast_parts.measure_parts, job),
        "training": partial(fast_models.measure_training, job),
        "inference": partial(fast_models.measure_inference, job),
    }
    with job.guarded(name):
        works[kind]()


class Runner:
    """Starts jobs and collects what they print."""

    def __init__(self, args: argparse.Namespace):
        from gpu_checks.report import Results

        self.args = args
        self.results = Results(Path(args.json) if args.json else None)
        self.results.facts = facts(args.device)
        self.end = time.monotonic() + args.limit
        self.lock = threading.Lock()

    def run(self, name: str, section: str, seconds: float) -> None:
        """Run one job to its end, or until it has taken too long."""
        from gpu_checks.report import PREFIX, Result

        command = [sys.executable, __file__, "--job", name, "--job-section", section]
        command += ["--device", self.args.device, "--limit", str(seconds)]
        command += ["--tiny"] if self.args.tiny else []
        command += ["--tests", self.args.tests] if self.args.tests else []
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        with open(f"{self.args.logs}/{name}.log" if self.args.logs else os.devnull, "w") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment
            )
            # What is measured stops by itself; this is for what hangs.
            timer = threading.Timer(seconds + 30, process.kill)
            timer.start()
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(PREFIX):
                    with self.lock:
                        self.results.add(Result(**json.loads(line.removeprefix(PREFIX))))
            code = process.wait()
            timer.cancel()
        if code:
            with self.lock:
                text = f"ended with exit code {code}"
                self.results.add(Result(section, f"job {name}", "FAIL", text))

    def run_all(self) -> int:
        """All jobs; the exit status is 1 if something failed."""
        together, alone = jobs_of(self.args.only, self.args.device)
        start = time.monotonic()
        if "whole" in self.args.only:
            self.run("data", "whole", 60)
        share = (self.end - start) * 0.55 if alone else self.end - start
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) * 3 // 4)) as pool:
            for name, section in together.items():
                pool.submit(self.run, name, section, share)
        left = sum(SHARES[name] for name in alone)
        for name, section in alone.items():
            seconds = max(10.0, self.end - time.monotonic()) * SHARES[name] / left
            left -= SHARES[name]
            self.run(name, section, seconds)
        print("\n" + self.results.table(), flush=True)
        return 1 if self.results.failed else 0


def facts(device: str) -> dict[str, str]:
    """What ran where."""
    import torch

    found = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if device == "cuda":
        found["card"] = torch.cuda.get_device_name()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="small numbers: try the script itself")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--tests", default="", metavar="EXPRESSION", help="as pytest's -k")
    parser.add_argument("--json", metavar="FILE", help="all figures, written as they are known")
    parser.add_argument("--logs", metavar="FOLDER", help="what the jobs write to stderr")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--job-section", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.job:
        run_job(args.job, args.job_section, args.device, args.tiny, args.limit, args.tests)
        return 0
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print("gpu_check: there is no CUDA device; --device cpu --tiny tries the script")
            return 2
    if args.logs:
        Path(args.logs).mkdir(parents=True, exist_ok=True)
    return Runner(args).run_all()


if __name__ == "__main__":
    sys.exit(main())
