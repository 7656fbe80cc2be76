"""Evaluation on labelled data sets."""

from pixelclip.evaluation.evaluators import build_evaluator

__all__ = ["build_evaluator"]
