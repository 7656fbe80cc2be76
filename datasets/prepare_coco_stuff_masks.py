"""Write the regions of COCO-Stuff's labels as unlabelled masks in SA-1B's JSON, for training."""

import sys

from pixelclip.data.datasets.coco_stuff_masks import SPLITS, prepare_coco_stuff_masks
from pixelclip.data.label_preparation import run_prepare_command


def main() -> int:
    """Run the command line; return its exit code."""
    splits = tuple(SPLITS.values())
    return run_prepare_command(str(__doc__), prepare_coco_stuff_masks, splits=splits)


if __name__ == "__main__":
    sys.exit(main())
