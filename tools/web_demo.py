#!/usr/bin/env python
"""Serve a page on which images are segmented in any words, at this machine only by default.

Without options it runs the packaged tiny CLIP, which knows the toy benchmark only; give a config
and weights for real images.
"""

import argparse
import contextlib
import sys
import threading
from collections.abc import Sequence

TOY_CONFIG = "configs/demo/toy.yaml"
TOY_NOTE = (
    "This is the packaged tiny CLIP. It knows the 20 classes of the toy benchmark and no real "
    "images: for those, start the page with `--config-file` and `--weights`."
)
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
    """Serve until interrupted; return 0, or 1 where no page could be served."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=TOY_CONFIG, help="of the model (%(default)s)")
    parser.add_argument("--weights", default="", help="a checkpoint (default: the config's)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    for name, value in LIMITS.items():
        option = f"--max-{name.replace('_', '-')}"
        parser.add_argument(
            option, dest=name, type=type(value), default=value, help="(%(default)s)"
        )
    parser.add_argument("--opts", nargs="+", default=[], help="KEY VALUE pairs, as in training")
    options = parser.parse_args(arguments)
    try:
        _serve(options)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe page has ended.")
    return 0


def _serve(options: argparse.Namespace) -> None:
    from pixelclip.web.models import PageModels
    from pixelclip.web.page import serve
    from pixelclip.web.request import Limits

    note = TOY_NOTE if options.config_file == TOY_CONFIG else ""
    limits = Limits(**{name: getattr(options, name) for name in LIMITS})
    models = PageModels(options.config_file, options.weights, options.opts, limits.seconds)
    with (
        contextlib.closing(models),
        serve(models, limits, options.host, options.port, note) as address,
    ):
        print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
