"""Write PASCAL Context's validation labels: 0..58 of Context-59, and 0..59 of Context-60."""

import sys

from pixelclip.data.datasets.pascal_context import prepare_pascal_context
from pixelclip.data.label_preparation import run_prepare_command


def main() -> int:
    """Run the command line; return its exit code."""
    return run_prepare_command(str(__doc__), prepare_pascal_context)


if __name__ == "__main__":
    sys.exit(main())
