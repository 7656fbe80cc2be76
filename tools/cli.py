"""Open-vocabulary semantic segmentation without semantic labels.

The command `pixelclip`: one entry point for all tools. Each of them also runs as a script.
"""

import difflib
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Collection, Sequence

# By group, each command with its module in this folder, or with a function of it.
COMMANDS = {
    "Use": {"predict": "predict", "web": "web_demo", "demo": "demo"},
    "Train and evaluate": {
        "train": "train_net",
        "evaluate": "train_net:evaluate",
        "masks": "generate_masks",
        "datasets check": "check_datasets",
        "datasets prepare": "prepare_dataset",
        "datasets resize-sa1b": "resize_sa1b",
    },
    "Pass on": {
        "convert": "convert_checkpoint",
        "export": "export",
        "export-prompts": "export_prompts",
    },
    "Look at": {
        "compare": "visualize_results",
        "prompts": "visualize_prompts",
        "curve": "plot_training",
        "measure-masks": "measure_masks",
        "speed": "analyze_speed",
        "check-gpu": "check_gpu",
    },
    "Toy benchmark": {"ablations": "reproduce_ablations", "pretrain-toy": "pretrain_toy_clip"},
    "Set up": {"install-detectron2": "install_detectron2"},
}
MODULES = {name: module for group in COMMANDS.values() for name, module in group.items()}

_HELP = ("-h", "--help", "help")
# Errors whose text tells a user what to do; others are bugs, and show where.
EXPLAINED = (OSError, ValueError, ImportError, RuntimeError)

Main = Callable[[Sequence[str]], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, or 2 where there is no such command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"] and len(words) > 1:
        words = [*words[1:], "--help"]
    if not words or words[0] in _HELP:
        print(_help())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"pixelclip {importlib.metadata.version('pixelclip')}")
        return 0
    name = " ".join(words[:2]) if " ".join(words[:2]) in MODULES else words[0]
    if name not in MODULES:
        return _list_or_refuse(words)
    sys.argv[0] = f"pixelclip {name}"  # which the command's usage names
    return run(_import(MODULES[name])[0], words[len(name.split()) :])


def run(command: Main, arguments: Sequence[str] | None = None) -> int:
    """Call a command's main function; say its errors in a sentence and return the exit code."""
    try:
        return command(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command starts it again.", file=sys.stderr)
        return 130
    except EXPLAINED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _import(command: str) -> tuple[Main, str]:
    """The function of a command, and the sentence that describes it."""
    # The folder is the package "tools" of a clone, and "pixelclip_tools" where a wheel put it.
    name, _, function = command.partition(":")
    module = importlib.import_module(f"{__package__}.{name}" if __package__ else name)
    main = getattr(module, function or "main")
    return main, str((main if function else module).__doc__).splitlines()[0]


def _help(chosen: Collection[str] = MODULES) -> str:
    lines = ["usage: pixelclip COMMAND ...", "", str(__doc__).splitlines()[0]]
    for group, commands in COMMANDS.items():
        names = [name for name in commands if name in chosen]
        lines += ["", f"{group}:"] if names else []
        lines += [f"  {name:<21} {_import(commands[name])[1]}" for name in names]
    return "\n".join([*lines, "", "pixelclip COMMAND --help explains a command."])


def _list_or_refuse(words: Sequence[str]) -> int:
    """Help on commands of two words where the first is given alone; else what is wrong."""
    matching = [name for name in MODULES if name.split()[0] == words[0]]
    if matching and (len(words) == 1 or words[1] in _HELP):
        print(_help(matching))
        return 0
    given = " ".join(words[: 2 if matching else 1])
    close = matching or difflib.get_close_matches(words[0], MODULES, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    text = f"error: there is no command {given!r}.{hint} pixelclip --help lists all."
    print(text, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
