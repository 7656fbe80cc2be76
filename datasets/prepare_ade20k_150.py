"""Write the ADE20K-150 validation labels as Detectron2's evaluator reads them: 0..149, 255 void."""

import sys

from pixelclip.data.datasets.ade20k_150 import prepare_ade20k_150
from pixelclip.data.label_preparation import run_prepare_command


def main() -> int:
    """Run the command line; return its exit code."""
    return run_prepare_command(str(__doc__), prepare_ade20k_150)


if __name__ == "__main__":
    sys.exit(main())
