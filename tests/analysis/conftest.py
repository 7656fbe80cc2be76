"""The labeled data sets of the evaluation's tests, on which clusters are compared too."""

from ..evaluation.conftest import labeled_sets, test_config

__all__ = ["labeled_sets", "test_config"]
