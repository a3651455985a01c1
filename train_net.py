"""Train, evaluate or dry-run a detector from a config file, on GPUs or CPUs.

python train_net.py --config-file configs/quickstart.yaml
python train_net.py --config-file configs/quickstart.yaml --resume
python train_net.py --config-file configs/quickstart.yaml --eval-only --resume
python train_net.py --config-file configs/quickstart.yaml --dry-run
python train_net.py --config-file projects/CenterNet/configs/quickstart_centernet.yaml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from retinanet_ext.cli import train
from retinanet_ext.cli.train import main

__all__ = ["main", "run"]

PROJECTS = Path(__file__).resolve().parent / "projects"


def run(argv: list[str] | None = None) -> None:
    """:func:`retinanet_ext.cli.train.run`, where a config of a project also imports the project."""
    train.run(with_project(sys.argv[1:] if argv is None else argv))


def with_project(argv: list[str]) -> list[str]:
    """The command line, with ``--import projects.NAME`` for a config below ``projects/NAME``.

    So what the project registers is known. Nothing is added where that folder is no package.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-file", default="")
    path = Path(parser.parse_known_args(argv)[0].config_file).resolve()
    if PROJECTS not in path.parents:
        return argv
    name = path.relative_to(PROJECTS).parts[0]
    is_package = (PROJECTS / name / "__init__.py").is_file()
    return ["--import", f"projects.{name}", *argv] if is_package else argv


if __name__ == "__main__":
    run()
