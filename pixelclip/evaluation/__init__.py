"""Evaluation on labeled data sets."""

from pixelclip.evaluation.benchmark import Benchmark
from pixelclip.evaluation.evaluators import build_evaluator
from pixelclip.evaluation.mask_classification import (
    MaskClassificationEvaluator,
    MaskClassifier,
    classify_masks,
)
from pixelclip.evaluation.mask_regions import MaskRegionsMapper

__all__ = [
    "Benchmark",
    "MaskClassificationEvaluator",
    "MaskClassifier",
    "MaskRegionsMapper",
    "build_evaluator",
    "classify_masks",
]
