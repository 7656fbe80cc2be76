#!/usr/bin/env python
"""Serve a web page on which images are segmented in any words.

Only this machine reaches it by default. `--weights toy` serves the packaged tiny CLIP, which needs
no network and knows toy scenes only.
"""

import argparse
import contextlib
import sys
import threading
from collections.abc import Sequence

# Of a request; `pixelclip.web.request.Limits` explains them.
LIMITS = {
    "upload_megabytes": 20.0,
    "megapixels": 40.0,
    "working_side": 1280,
    "words": 100,
    "word_length": 80,
    "seconds": 60.0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--weights", default="", help="a model's name, file, folder or address (pixelclip_vitb16)"
    )
    parser.add_argument("--config-file", default="", help="default: the one of the weights")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    for name, value in LIMITS.items():
        option = f"--max-{name.replace('_', '-')}"
        parser.add_argument(
            option, dest=name, type=type(value), default=value, help="(%(default)s)"
        )
    parser.add_argument("--opts", nargs="+", default=[], help="config keys and values: KEY VALUE")
    options = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt):
        _serve(options)
    print("\nThe page has ended.")
    return 0


def _serve(options: argparse.Namespace) -> None:
    from pixelclip.web.models import PageModels
    from pixelclip.web.page import serve
    from pixelclip.web.request import Limits

    limits = Limits(**{name: getattr(options, name) for name in LIMITS})
    models = PageModels(options.config_file, options.weights, options.opts, limits.seconds)
    with (
        contextlib.closing(models),
        serve(models, limits, options.host, options.port, models.note) as address,
    ):
        print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
