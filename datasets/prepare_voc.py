"""Write the PASCAL VOC 2012 validation labels with 20 classes: 0..19, 255 void and background."""

import sys

from pixelclip.data.datasets.pascal_voc_20 import prepare_pascal_voc_20
from pixelclip.data.label_preparation import run_prepare_command

if __name__ == "__main__":
    sys.exit(run_prepare_command(str(__doc__), prepare_pascal_voc_20))
