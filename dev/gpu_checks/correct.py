"""Section "correct": the tests marked cuda, which check against Detectron2 and float64."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .report import Job

__all__ = ["GROUPS", "run_tests"]

ROOT = Path(__file__).resolve().parent.parent.parent

# Folders of tests that run one after the other; the groups run side by side.
GROUPS = {
    "losses": ["losses", "benchmark"],
    "modeling": ["modeling"],
    "rest": [],
}


def run_tests(job: Job, group: str, expression: str = "") -> None:
    """Run the tests marked cuda of a group of folders; a result for each that did not pass.

    Args:
        job: whose device.
        group: of :data:`GROUPS`.
        expression: for pytest's -k.
    """
    tests = ROOT / "tests"
    taken = {name for names in GROUPS.values() for name in names}
    if GROUPS[group]:
        folders = [tests / name for name in GROUPS[group] if (tests / name).is_dir()]
    else:
        skipped = {*taken, "helpers", "projects"}
        folders = [p for p in sorted(tests.iterdir()) if p.is_dir() and p.name not in skipped]
        folders = [p for p in folders if not p.name.startswith(("_", "."))]
    # Plugins that happen to be installed take no part.
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    if job.device == "cpu":
        environment["RETINANET_EXT_CUDA_TESTS_ON"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
        command += ["-k", expression] if expression else []
        command += ["--continue-on-collection-errors"]
        command += [f"--junitxml={report}", *map(str, folders)]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr)
        if not report.is_file():
            job.tell(f"tests of {group}", "FAIL", f"pytest ended with {done.returncode}")
            return
        _tell(job, group, report)


def _tell(job: Job, group: str, report: Path) -> None:
    passed = failed = 0
    skips: dict[str, int] = {}
    seconds = 0.0
    for case in ElementTree.parse(report).iter("testcase"):
        seconds += float(case.get("time", 0))
        name = f"{case.get('classname', '').removeprefix('tests.')}.{case.get('name')}"
        bad = case.find("failure")
        bad = case.find("error") if bad is None else bad
        skip = case.find("skipped")
        if bad is not None:
            failed += 1
            job.tell(name, "FAIL", " ".join((bad.get("message") or "").split())[:400])
        elif skip is not None:
            reason = skip.get("message") or ""
            skips[reason] = skips.get(reason, 0) + 1
        else:
            passed += 1
    if not passed and not failed and not skips:
        return
    text = f"{passed} passed, {failed} failed in {seconds:.0f} s"
    text += "".join(f"; {count} skipped: {reason}" for reason, count in skips.items())
    job.tell(f"tests of {group}", "FAIL" if failed or not passed else "ok", text, passed=passed)
