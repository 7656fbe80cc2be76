"""The labelled data sets of the evaluation's tests, on which clusters are compared too."""

from ..evaluation.conftest import labelled_sets, test_config

__all__ = ["labelled_sets", "test_config"]
