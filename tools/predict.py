#!/usr/bin/env python
"""Label images, folders, videos or a camera with any words.

Writes overlays, label maps and JSON, and with --format one file about all images for an annotation
tool. After an interruption, the same command resumes. Files that cannot be read are skipped and
named at the end; the exit code is then 1. Processes that torchrun or SLURM start, or that have a
--shard each, divide the files; their exit code is 0 at the end. Then the same command in a single
process writes the file of the --format.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixelclip.inference.files import PredictionReport, PredictionSettings
    from pixelclip.utils.shards import Shard


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    has_input = bool(options.inputs) or options.camera is not None
    if options.words and (path := _find_path(options.words, has_input)):
        parser.error(
            f"--words took {path!r} for a word: put images and folders before the options, as in "
            'pixelclip predict photo.jpg --words "sky, tree"'
        )
    if not has_input:
        parser.error("name images, videos, folders or globs before the options, or a --camera")
    if options.polygons and not options.format:
        parser.error("--polygons needs a --format: coco, cvat or label-studio")
    if options.format and not options.inputs:
        parser.error("--format needs images; it writes nothing about a camera or a video")
    return _predict(options)


def _find_path(words: Sequence[str], has_input: bool) -> str | None:
    """The first word that is a file or has the suffix of one, or that is a folder.

    A folder may have the name of a word; it counts with a slash, or where there is no other input.
    """
    suffixes = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".mp4", ".mov", ".avi")

    def is_path(word: str) -> bool:
        # Unlike Path's, these take a list of words that is longer than a file name can be.
        is_there = os.path.isfile if has_input and os.sep not in word else os.path.exists
        return word.lower().endswith(suffixes) or "://" in word or is_there(word)

    return next(filter(is_path, words), None)


def _read_settings(options: argparse.Namespace) -> "PredictionSettings":
    from pixelclip.data.vocabularies import parse_words
    from pixelclip.inference.annotations import AnnotationSettings
    from pixelclip.inference.files import PredictionSettings

    def words(given: Sequence[str] | None) -> tuple[str, ...] | None:
        return parse_words(given) if given else None

    annotations = None
    if options.format:
        annotations = AnnotationSettings(options.format, options.polygons, options.min_region)
    return PredictionSettings(
        vocabulary=words(options.words) or options.vocabulary,
        output=options.output,
        config_file=options.config_file,
        weights=options.weights,
        overrides=options.opts,
        background_threshold=options.background_threshold,
        background_words=words(options.background_words),
        frame_step=options.frame_step,
        annotations=annotations,
    )


def _predict(options: argparse.Namespace) -> int:
    from pixelclip.inference.files import (
        PredictionReport,
        find_prediction_status,
        predict_camera,
        predict_files,
    )
    from pixelclip.utils.shards import find_shard

    settings = _read_settings(options)
    shard, report = find_shard(options.shard), PredictionReport()
    if options.status:
        status = find_prediction_status(options.inputs, settings)
        print(status.describe(shard.count))
        return 0 if status.is_complete else 1
    if options.inputs:
        report = predict_files(options.inputs, settings, shard)
    if options.camera is not None:
        camera = predict_camera(options.camera, settings, options.seconds)
        report.written += camera.written
        report.files += camera.files
    return _conclude(report, shard, options.output)


def _conclude(report: "PredictionReport", shard: "Shard", output: Path) -> int:
    for problem in report.problems.values():
        print(f"problem: {problem}", file=sys.stderr)
    if not shard.is_whole:
        # Another exit code would make torchrun end the other processes; --status has all problems.
        print(f"{shard}: {report.summarize(output)}")
        return 0
    print(report.summarize(output))
    return 1 if report.problems or not (report.written or report.kept) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "inputs", nargs="*", help="images (also https addresses), videos, folders or globs"
    )
    vocabulary = parser.add_mutually_exclusive_group(required=True)
    vocabulary.add_argument(
        "--words", nargs="+", help='the classes, and synonyms after slashes: "cat, sofa/couch"'
    )
    vocabulary.add_argument(
        "--vocabulary", help="a file of names written so or in lines, or a packaged one: ade20k_150"
    )
    parser.add_argument(
        "--weights", default="", help="a model's name, file, folder or address (pixelclip_vitb16)"
    )
    parser.add_argument("--config-file", default="", help="default: the one of the weights")
    parser.add_argument(
        "--output", type=Path, default=Path("output/predictions"), help="folder (%(default)s)"
    )
    _add_annotation_options(parser)
    parser.add_argument("--background-threshold", type=float, help="below this cosine: background")
    parser.add_argument("--background-words", nargs="+", help="words that mean background")
    parser.add_argument("--camera", type=int, metavar="NUMBER", help="a webcam; 0 is the first")
    parser.add_argument("--seconds", type=float, help="of the camera; default: until Ctrl-C")
    parser.add_argument(
        "--frame-step", type=int, default=1, help="label every Nth frame of a video (%(default)s)"
    )
    parser.add_argument(
        "--shard", help="3/64: the third of 64 shares; default: torchrun's or SLURM's"
    )
    parser.add_argument(
        "--status", action="store_true", help="only say what is done; exit code 1 if not everything"
    )
    parser.add_argument("--opts", nargs="+", default=[], help="config keys and values: KEY VALUE")
    return parser


def _add_annotation_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=("coco", "cvat", "label-studio", "masks"),
        help="also write one file about all images, for an annotation tool",
    )
    parser.add_argument(
        "--polygons", action="store_true", help="in it, polygons for regions without holes"
    )
    parser.add_argument(
        "--min-region",
        type=float,
        default=0.001,
        metavar="SHARE",
        help="of the image, that a region in it must have (%(default)s)",
    )


if __name__ == "__main__":
    from cli import run

    sys.exit(run(main))
