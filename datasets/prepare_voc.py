"""Write PASCAL VOC 2012's validation labels: 0..19 of VOC-20, and 0..20 of VOC-21; 255 is void."""

import sys

from pixelclip.data.datasets.pascal_voc import prepare_pascal_voc
from pixelclip.data.label_preparation import run_prepare_command


def main() -> int:
    """Run the command line; return its exit code."""
    return run_prepare_command(str(__doc__), prepare_pascal_voc)


if __name__ == "__main__":
    sys.exit(main())
