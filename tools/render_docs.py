#!/usr/bin/env python
"""Render the docstrings of every module as web pages, which need no network."""

import argparse
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pdoc

import pixelclip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where a page could not be made as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/docs"), help="(%(default)s)")
    output = parser.parse_args(arguments).output
    modules = import_all_modules()
    pdoc.render.configure(docformat="google")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of packages that list their names, modules are only found when they are asked for; those
        # of the others are then found twice.
        warnings.filterwarnings("ignore", "The module specification")
        try:
            pdoc.pdoc(*modules, output_directory=output)
        except (OSError, UserWarning) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(f"Wrote {output / 'index.html'}")
    return 0


def import_all_modules() -> list[str]:
    """Import the package with all its modules; return their names."""
    found = pkgutil.walk_packages(pixelclip.__path__, "pixelclip.")
    names = ["pixelclip", *(module.name for module in found)]
    for name in names:
        module = importlib.import_module(name)
        for lazy in set(getattr(module, "__all__", ())) - set(vars(module)):
            setattr(module, lazy, getattr(module, lazy))  # pdoc does not ask __getattr__
    return names


if __name__ == "__main__":
    sys.exit(main())
