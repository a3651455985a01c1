"""``python -m retinanet_ext COMMAND ...``, the same as ``retinanet-ext COMMAND ...``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
