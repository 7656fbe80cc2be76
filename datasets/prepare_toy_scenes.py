"""Draw the embedded world's scenes: 4,000 with masks to train on, 300 and 600 with labels."""

import sys

from pixelclip.data.label_preparation import run_prepare_command
from pixelclip.toy.scene_files import write_scenes


def main() -> int:
    """Run the command line; return its exit code."""
    return run_prepare_command(str(__doc__), write_scenes)


if __name__ == "__main__":
    sys.exit(main())
