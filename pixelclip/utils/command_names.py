"""How a command line of ours is started: from a checkout, or from an installed package."""

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = re.compile(r"(?:\S*\bpython )?\b(?:tools|datasets)/(\w+)\.py\b")


def runnable_command(command: str) -> str:
    """A command of the repository as it runs here.

    Args:
        command: such as "python tools/train_net.py --resume".

    Returns:
        ``command`` itself in a checkout, where its script is; else with the console command that an
        installed package has instead, as in "pixelclip-train-net --resume".
    """
    if (_ROOT / "tools" / "train_net.py").is_file():
        return command
    return _SCRIPT.sub(lambda match: f"pixelclip-{match[1].replace('_', '-')}", command)
