#!/usr/bin/env python
"""Train RetinaNet, its ancestors and its successor for the same time, and draw them in one figure.

python projects/Ancestors/compare.py
python projects/Ancestors/compare.py --dataset bccd --minutes 10 --seeds 2
python projects/Ancestors/compare.py --system retinanet --system viola_jones --minutes 2
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / name) for name in ("projects/Ancestors", "projects/FocalLossPaper", "")]
sys.path[:0] = PATHS  # the parts of this project, and what it shares with that one

from ancestors.plan import Comparison, child_command, missing  # noqa: E402
from ancestors.report import measure_all, publish, write_report  # noqa: E402
from ancestors.systems import SYSTEMS, System, by_name  # noqa: E402
from focal_loss_paper.runs import TERMINAL, Run  # noqa: E402
from focal_loss_paper.training import train_runs  # noqa: E402

from retinanet_ext.cli.common import debug_options, run_guarded  # noqa: E402
from retinanet_ext.data.datasets.register import register_builtin_datasets  # noqa: E402
from retinanet_ext.engine.user_modules import import_modules  # noqa: E402


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    first, *commands = (__doc__ or "").strip().splitlines()
    parser = argparse.ArgumentParser(
        description=first,
        epilog="\n".join(commands).strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[debug_options()],
    )
    names = [system.name for system in SYSTEMS if system.shown]
    parser.add_argument(
        "--dataset",
        default="quickstart",
        metavar="NAME",
        help="quickstart (default), quickstart_hard, bccd, or any registered NAME_train, NAME_val",
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, each (default: 5)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each system (default: 1)")
    parser.add_argument(
        "--system",
        action="append",
        choices=names,
        help="only this one; may be given several times",
    )
    parser.add_argument("--iters", type=int, metavar="N", help="iterations in place of --minutes")
    parser.add_argument("--output-dir", type=Path, default=Path("output/Ancestors"))
    parser.add_argument("--list", action="store_true", help="show what is done; trains nothing")
    parser.add_argument(
        "--report-only", action="store_true", help="measure and draw what is trained; no training"
    )
    parser.add_argument(
        "--publish", action="store_true", help="copy table and figures to the project's results/"
    )
    parser.add_argument("--data-root", metavar="DIR", help="as for train_net.py")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours that registers the dataset; the trainings import it, too",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ... for every config")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or args.seeds < 1 or (args.iters is not None and args.iters < 1):
        parser.error("--minutes must be above 0, --seeds and --iters at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    """The exit status is 1 if a training failed, 2 after a user's mistake."""
    args = parse_args(argv)
    try:
        return run_guarded(lambda: compare(args), args.debug)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        return 130


def compare(args: argparse.Namespace) -> int:
    """Train what is not trained yet, or list it, and report."""
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")])
    register_builtin_datasets(args.data_root)
    import_modules(args.imports)
    comparison = Comparison(
        args.dataset,
        args.output_dir / args.dataset,
        args.minutes,
        args.iters,
        tuple(args.opts),
        args.data_root,
        tuple(args.imports),
        say=lambda text: print(text, flush=True),
    )
    wanted = [s for s in SYSTEMS if s.shown and (not args.system or s.name in args.system)]
    skipped = {system.label: why for system in wanted if (why := missing(system))}
    for label, why in skipped.items():
        print(f"{label} is left out: {why}", flush=True)
    wanted = [system for system in wanted if system.label not in skipped]
    for system in wanted:
        comparison.check(system)  # a slip of the pen now, not after an hour
    runs: dict[System, list[Run]] = {system: [] for system in wanted}
    if args.list or args.report_only:
        for seed in range(1, args.seeds + 1):
            for system in wanted:
                run = comparison.run(system, seed, plan=False)
                runs[system] += [run] if run else []
                status = run.result().get("status", "not run") if run else "not run"
                if args.list:
                    print(f"{status:12} {system.name:14} seed {seed}  {run.folder if run else ''}")
        failed = 0
    else:
        failed = train_all(comparison, runs, args.seeds, skipped)
    if not args.list:
        measure_all(comparison, runs)
        write_report(comparison, runs, skipped)
        print(f"{comparison.folder / 'table.md'}, results.json and figures are written")
    if args.publish:
        print(f"copied to {publish(comparison.folder, args.dataset)}")
    return 1 if failed else 0


def train_all(
    comparison: Comparison, runs: dict[System, list[Run]], seeds: int, skipped: dict[str, str]
) -> int:
    """Train one system after the other, first all with seed 1; each has the machine to itself.

    Returns:
        How many trainings failed.
    """
    failed = 0
    for seed in range(1, seeds + 1):
        for system in list(runs):
            before = [by_name(system.proposals)] if system.proposals else []
            for part in (*before, system):
                run = comparison.run(part, seed)
                if run is None:  # its proposals could not be trained
                    break
                if part is system:
                    runs[system].append(run)
                if run.result().get("status") in TERMINAL:
                    continue
                comparison.say(f"{part.label}, seed {seed}: training")
                failed += train_runs(
                    [run],
                    lambda run, part=part: child_command(run, part, comparison),  # type: ignore[misc]
                    say=_without_counts(comparison.say),
                )
                write_report(comparison, runs, skipped)
    return failed


def _without_counts(say: Callable[[str], None]) -> Callable[[str], None]:
    """What :func:`train_runs` says of a list of runs says nothing of a single one."""

    def filtered(text: str) -> None:
        if not text.endswith("done before"):
            say(text.removeprefix("[1/1] ").replace("; about 0 min left", ""))

    return filtered


if __name__ == "__main__":
    sys.exit(main())
