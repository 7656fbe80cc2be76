#!/usr/bin/env python
"""Repeat a training step whose loss or gradient was no number, and say where that came from."""

import argparse

from pixelclip.engine.bad_numbers import replay_bad_step


def main() -> None:
    """Print what the step in the file gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="a file of OUTPUT_DIR/bad_numbers")
    replay = replay_bad_step(parser.parse_args().file)
    print(f"The training stopped at iteration {replay.iteration}: {replay.problem}")
    print(f"Losses now: {replay.losses}")
    print(f"First module with a bad output: {replay.first_bad_module or 'none'}")
    for what in ("parameters", "gradients"):
        names = getattr(replay, f"bad_{what}")
        print(f"Bad {what}: {len(names)}", *names[:10], sep="\n  ")
    print("Loss of each image alone:")
    for name, loss in replay.image_losses.items():
        print(f"  {name}: {loss}")


if __name__ == "__main__":
    main()
