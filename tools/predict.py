#!/usr/bin/env python
"""Label images, folders, videos or a camera in any words; write overlays, label maps and JSON.

After an interruption, the same command resumes. Files that cannot be read are skipped and named at
the end; the exit code is then 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.inputs and options.camera is None:
        parser.error("name images, videos, folders or globs, or a --camera")
    try:
        return _predict(options)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the same command resumes from here.", file=sys.stderr)
        return 130


def _predict(options: argparse.Namespace) -> int:
    from pixelclip.inference.files import (
        PredictionReport,
        PredictionSettings,
        predict_camera,
        predict_files,
    )

    settings = PredictionSettings(
        vocabulary=options.words or options.vocabulary,
        output=options.output,
        config_file=options.config_file,
        weights=options.weights,
        overrides=options.opts,
        background_threshold=options.background_threshold,
        background_words=options.background_words,
        frame_step=options.frame_step,
    )
    report = PredictionReport()
    if options.inputs:
        report = predict_files(options.inputs, settings)
    if options.camera is not None:
        report.written += predict_camera(options.camera, settings, options.seconds).written
    for path, problem in report.problems.items():
        named = problem if problem.startswith(path) else f"{path}: {problem}"
        print(f"problem: {named}", file=sys.stderr)
    kept = f", {report.kept} were there already" if report.kept else ""
    problems = f"{len(report.problems)} problems"
    print(f"{report.written} labeled{kept}, {problems}; results in {options.output}")
    return 1 if report.problems or not (report.written or report.kept) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="*", help="images, videos, folders or globs")
    parser.add_argument("--camera", type=int, metavar="NUMBER", help="a webcam; 0 is the first")
    parser.add_argument("--seconds", type=float, help="of the camera; default: until Ctrl-C")
    vocabulary = parser.add_mutually_exclusive_group(required=True)
    vocabulary.add_argument("--words", nargs="+", help='the classes: cat "sofa, couch" wall')
    vocabulary.add_argument("--vocabulary", help="file of names, or a packaged one (ade20k_150)")
    parser.add_argument("--output", type=Path, default=Path("output/predictions"))
    parser.add_argument("--config-file", default="configs/pixelclip_vitb16.yaml")
    parser.add_argument("--weights", default="", help="checkpoint; default: CLIP as it is")
    parser.add_argument("--background-threshold", type=float, help="below this cosine: background")
    parser.add_argument("--background-words", nargs="+", help="words that mean background")
    parser.add_argument("--frame-step", type=int, default=1, help="label every Nth frame")
    parser.add_argument("--opts", nargs="+", default=[], help="KEY VALUE pairs, as in training")
    return parser


if __name__ == "__main__":
    sys.exit(main())
