"""Write the ADE20K-150 validation labels as Detectron2's evaluator reads them: 0..149, 255 void."""

import sys

from pixelclip.data.datasets.ade20k_150 import prepare_ade20k_150
from pixelclip.data.label_preparation import run_prepare_command

if __name__ == "__main__":
    sys.exit(run_prepare_command(str(__doc__), prepare_ade20k_150))
