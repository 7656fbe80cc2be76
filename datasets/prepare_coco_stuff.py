"""Write the COCO-Stuff validation labels as Detectron2's evaluator reads them: 0..170, 255 void."""

import sys

from pixelclip.data.datasets.coco_stuff import prepare_coco_stuff
from pixelclip.data.label_preparation import run_prepare_command


def main() -> int:
    """Run the command line; return its exit code."""
    return run_prepare_command(str(__doc__), prepare_coco_stuff)


if __name__ == "__main__":
    sys.exit(main())
