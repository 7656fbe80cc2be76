#!/usr/bin/env python
"""Serve a page on which pictures are segmented in any words, at this machine only by default.

Without options it runs the packaged tiny CLIP, which knows a drawn world; give a config and weights
for photographs.
"""

import argparse
import contextlib
import sys
import threading
from collections.abc import Sequence

from pixelclip.web.models import PageModels
from pixelclip.web.page import serve
from pixelclip.web.request import Limits

TOY_CONFIG = "configs/demo/toy.yaml"
TOY_NOTE = (
    "This is the packaged tiny CLIP. It knows a drawn world of 20 things, and no photographs: for "
    "those, start the page with `--config-file` and `--weights`."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return 0, or 1 where no page could be served."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=TOY_CONFIG, help="of the model (%(default)s)")
    parser.add_argument("--weights", default="", help="a checkpoint (default: the config's)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, help="default: a free one from 7860 on")
    for name, value in vars(Limits()).items():
        option = f"--max-{name.replace('_', '-')}"
        parser.add_argument(
            option, dest=name, type=type(value), default=value, help="(%(default)s)"
        )
    parser.add_argument("--opts", nargs="+", default=[], help="KEY VALUE pairs, as in training")
    options = parser.parse_args(arguments)
    note = TOY_NOTE if options.config_file == TOY_CONFIG else ""
    try:
        limits = Limits(**{name: getattr(options, name) for name in vars(Limits())})
        models = PageModels(
            options.config_file, options.weights, options.opts, seconds=limits.seconds
        )
        with (
            contextlib.closing(models),
            serve(models, limits, options.host, options.port, note) as address,
        ):
            print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
            threading.Event().wait()
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe page has ended.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
