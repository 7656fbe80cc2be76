"""Write COCO-Stuff's regions as masks, as ``pixelclip datasets prepare coco_stuff_masks`` does."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).parents[1] / "tools"
    sys.path.insert(0, str(folder))
    sys.argv.insert(1, "coco_stuff_masks")
    runpy.run_path(str(folder / "prepare_dataset.py"), run_name="__main__")
