#!/usr/bin/env python
"""Write ONNX or torch.export files that run without PixelCLIP, checked against the model.

`encoder` gives dense image features, `classifier` the scores of words (given here, or as text
features when it runs), `text` the text features of words.
"""

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where nothing was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("encoder", "classifier", "text"), help="what is exported")
    parser.add_argument("--config-file", required=True, help="of the model")
    parser.add_argument("--weights", default="", help="a checkpoint (default: the config's)")
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument("--words", nargs="+", help='the classes: cat "sofa, couch" wall')
    vocabulary.add_argument("--vocabulary", help="file of names, or a packaged one (ade20k_150)")
    parser.add_argument("--output", required=True, help="ends in .onnx or .pt2; .npz for text")
    parser.add_argument("--opts", nargs="+", default=[], help="KEY VALUE pairs, as in training")
    options = parser.parse_args(arguments)
    try:
        _export(options)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _export(options: argparse.Namespace) -> None:
    from pixelclip.data.vocabularies import read_vocabulary
    from pixelclip.engine.setup import load_config
    from pixelclip.export import export_model, save_text_features
    from pixelclip.inference.predictor import Predictor

    given = options.words or options.vocabulary
    names = read_vocabulary(given) if given else ()
    cfg = load_config(options.config_file, options.opts)
    model = Predictor.from_config(cfg, options.weights).model
    if options.kind == "text":
        save_text_features(model, names, options.output)
        print(f"Wrote {options.output}: text features of {len(names)} classes")
        return
    test_sizes = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    differences = export_model(model, options.kind, options.output, names, test_sizes)
    for shape, difference in differences.items():
        size = "x".join(map(str, shape))
        print(f"images {size}: largest difference from PyTorch {difference:.1e}")
    print(f"Wrote {options.output} ({os.path.getsize(options.output) / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
