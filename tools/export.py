#!/usr/bin/env python
"""Write ONNX or torch.export files that run without PixelCLIP.

Each is checked against the model. `encoder` gives dense image features, `classifier`
the scores of words (given here, or as text features when it runs), `text` the text features of
words.
"""

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("encoder", "classifier", "text"), help="what is exported")
    parser.add_argument(
        "--weights", default="", help="a model's name, file, folder or address (pixelclip_vitb16)"
    )
    parser.add_argument("--config-file", default="", help="default: the one of the weights")
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument("--words", nargs="+", help='the classes: "cat, sofa/couch"')
    vocabulary.add_argument("--vocabulary", help="file of names, or a packaged one (ade20k_150)")
    parser.add_argument("--output", required=True, help="ends in .onnx or .pt2; .npz for text")
    parser.add_argument("--opts", nargs="+", default=[], help="config keys and values: KEY VALUE")
    options = parser.parse_args(arguments)
    _export(options)
    return 0


def _export(options: argparse.Namespace) -> None:
    from pixelclip.data.vocabularies import parse_words, read_vocabulary
    from pixelclip.export import export_model, save_text_features
    from pixelclip.inference.predictor import Predictor

    names = parse_words(options.words) if options.words else ()
    names = read_vocabulary(options.vocabulary) if options.vocabulary else names
    predictor = Predictor.from_config(options.config_file, options.weights, options.opts)
    model = predictor.model
    if options.kind == "text":
        save_text_features(model, names, options.output)
        print(f"Wrote {options.output}: text features of {len(names)} classes")
        return
    test_sizes = (predictor.min_size, predictor.max_size)
    differences = export_model(model, options.kind, options.output, names, test_sizes)
    for shape, difference in differences.items():
        size = "x".join(map(str, shape))
        print(f"images {size}: largest difference from PyTorch {difference:.1e}")
    print(f"Wrote {options.output} ({os.path.getsize(options.output) / 1e6:.1f} MB)")


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
