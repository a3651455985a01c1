#!/usr/bin/env python
"""Write the boxes of a trained proposal network to the file that R-CNN's config names.

python projects/Ancestors/make_proposals.py --run output/quickstart_rpn --dataset quickstart_train --output output/proposals/quickstart_train.pkl
"""  # noqa: E501

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]

from ancestors.proposals import Proposer, write_proposals  # noqa: E402

from retinanet_ext.cli.common import debug_options, run_guarded  # noqa: E402
from retinanet_ext.data.datasets.register import register_builtin_datasets  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """The exit status is 2 after a user's mistake."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip().splitlines()[0], parents=[debug_options()]
    )
    parser.add_argument("--run", required=True, metavar="FOLDER", help="OUTPUT_DIR of its training")
    parser.add_argument("--weights", default="", metavar="FILE", help="default: the final model")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="a registered dataset")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    parser.add_argument("--data-root", metavar="DIR", help="as for train_net.py")
    args = parser.parse_args(argv)

    def write() -> int:
        register_builtin_datasets(args.data_root)
        propose = Proposer(args.run, args.weights)
        write_proposals(propose, args.dataset, args.output, propose.cfg.INPUT.FORMAT)
        print(f"{args.output} is written")
        return 0

    return run_guarded(write, args.debug)


if __name__ == "__main__":
    sys.exit(main())
