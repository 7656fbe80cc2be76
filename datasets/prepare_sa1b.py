"""Copy SA-1B with images of half the size, as ``pixelclip datasets resize-sa1b`` does."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).parents[1] / "tools"
    sys.path.insert(0, str(folder))
    runpy.run_path(str(folder / "resize_sa1b.py"), run_name="__main__")
