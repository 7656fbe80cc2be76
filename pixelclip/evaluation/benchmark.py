"""Evaluate one model on all test data sets, each with its own vocabulary, into one table.

Everything about the data sets is checked before the first image. What is finished is on disk at
once (``result_cache.py``), so that the same evaluation, started again, resumes where it stopped.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, print_csv_format
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n

from pixelclip.config import check_choice
from pixelclip.data.vocabularies import vocabulary_of_dataset
from pixelclip.evaluation.evaluators import EVALUATIONS, LabelMapEvaluator, LabelMapModel
from pixelclip.evaluation.mask_classification import MaskClassifier
from pixelclip.evaluation.mask_regions import mask_folder_of
from pixelclip.evaluation.missing_datasets import find_missing_datasets
from pixelclip.evaluation.result_cache import (
    DatasetResult,
    Fingerprint,
    hash_data,
    hash_weights,
    load_result,
    make_fingerprint,
    save_result,
)
from pixelclip.evaluation.table import get_published_row, make_rows, write_table
from pixelclip.evaluation.timed_inference import run_timed_inference
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.inference_masks import GIVEN_MASKS, NO_MASKS
from pixelclip.modeling.text_classifier import NO_THRESHOLD
from pixelclip.utils.console import FILE_ONLY

logger = logging.getLogger(__name__)

# They choose what is evaluated or shown, or are hashed by content: no result depends on them.
_WITHOUT_EFFECT = {
    "MODEL": ("WEIGHTS",),
    "DATASETS": ("TRAIN", "TEST"),
    "TEST": (
        "EVAL_PERIOD",
        "EXPECTED_RESULTS",
        "IMS_PER_BATCH",
        "MASKS",
        "PUBLISHED_ROW",
        "SAVE_PREDICTIONS",
        "VOCABULARY",
    ),
}


class ResultNotStoredError(OSError):
    """An evaluation was finished, and what it found could not be written."""


class NoTestSetError(FileNotFoundError):
    """None of the data sets to evaluate exists."""


@dataclass
class Benchmark:
    """The evaluation of a model on several data sets.

    Args:
        names: registered data sets, evaluated in this order.
        folder: for the results of the data sets and the table.
        settings: every setting that a result depends on, as JSON.
        vocabulary: "" for each data set's own class names, "synonyms" for the rich ones.
        protocol: how the model is evaluated, in words, for the table.
        published_row: of ``table.py``, to stand next to the results; "" for none.
        evaluation: "segmentation" or "mask_classification".
        mask_folder: SA-1B JSON files of the masks that images come with; None for the labeled
            regions, or no masks.

    Raises:
        ValueError: an unknown evaluation or published row.
    """

    names: Sequence[str]
    folder: str
    settings: Mapping[str, Any]
    vocabulary: str = ""
    protocol: str = ""
    published_row: str = ""
    evaluation: str = "segmentation"
    mask_folder: Path | None = None

    def __post_init__(self) -> None:
        check_choice("TEST.EVALUATION", self.evaluation, EVALUATIONS)
        self.published = get_published_row(self.published_row)
        self._write_errors: list[OSError] = []

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "Benchmark":
        """Build it as a Detectron2 config says.

        Raises:
            ValueError, FileNotFoundError: masks cannot be classified as the config says.
        """
        _warn_of_unused_background(cfg)
        if cfg.TEST.EVALUATION == "mask_classification":
            _check_whole_image(cfg)
        mask_folder = mask_folder_of(cfg.TEST.MASKS) if takes_given_masks(cfg) else None
        return cls(
            names=cfg.DATASETS.TEST,
            folder=os.path.join(cfg.OUTPUT_DIR, "evaluation"),
            settings=result_settings(cfg),
            vocabulary=cfg.TEST.VOCABULARY,
            protocol=describe_protocol(cfg),
            published_row=cfg.TEST.PUBLISHED_ROW if _is_published_protocol(cfg) else "",
            evaluation=cfg.TEST.EVALUATION,
            mask_folder=mask_folder,
        )

    def prepare(
        self, build_evaluator: Callable[[str], DatasetEvaluator]
    ) -> tuple[dict[str, DatasetEvaluator], dict[str, str]]:
        """Look at all data sets; say in the log, once, which ones cannot be evaluated, and why.

        Every process must call it.

        Args:
            build_evaluator: makes the evaluator of a data set.

        Returns:
            The evaluators of the data sets that exist, and the reason for each other one.

        Raises:
            NoTestSetError: none of the data sets exists.
            ValueError: a data set of another kind.
        """
        missing = find_missing_datasets(self.names, self.mask_folder)
        if missing and len(missing) == len(set(self.names)):
            problems = "\n".join(missing.values())
            raise NoTestSetError(f"No data set of DATASETS.TEST can be evaluated.\n{problems}")
        for name, problem in missing.items():
            # Once, not at each evaluation of a training.
            log_first_n(logging.WARNING, f"{name} will not be evaluated. {problem}", key="message")
        names = [name for name in self.names if name not in missing]
        for name in names:
            dataset_vocabulary(name, self.vocabulary)
        return {name: build_evaluator(name) for name in names}, missing

    def run(
        self,
        model: PixelCLIP,
        build_loader: Callable[[str], Any],
        build_evaluator: Callable[[str], DatasetEvaluator],
        reuse: bool = True,
    ) -> dict[str, dict[str, Any]]:
        """Evaluate; log the table and write it to ``benchmark.md`` and ``.json`` in the folder.

        Every process must call it; only the main one writes.

        Args:
            model: left with the last data set's vocabulary.
            build_loader, build_evaluator: make those of a data set.
            reuse: take what is stored for the same weights, settings and data, and store the rest.

        Returns:
            Metrics by data set, without those that cannot be evaluated.

        Raises:
            NoTestSetError, ValueError: see :meth:`prepare`.
            ResultNotStoredError: in the main process, after all is evaluated and logged: a result
                or the table could not be written.
        """
        self._write_errors.clear()
        evaluators, missing = self.prepare(build_evaluator)
        weights = hash_weights(model) if reuse and comm.is_main_process() else None
        results = {}
        for name in list(evaluators):
            # Taken out, so that a finished evaluator's predictions do not stay in memory.
            evaluator = evaluators.pop(name)
            fingerprint = self._fingerprint(name, weights)
            result = self._load(name, fingerprint)
            if result is None:
                result = self._evaluate(name, model, build_loader(name), evaluator)
                self._save(name, fingerprint, result)
            results[name] = result
        self._report(results, missing)
        return {name: result.metrics for name, result in results.items()}

    def _fingerprint(self, name: str, weights: str | None) -> Fingerprint | None:
        """None where nothing is to be stored, such as on other processes than the main one."""
        if weights is None:
            return None
        vocabulary = dataset_vocabulary(name, self.vocabulary)
        data = hash_data(name, self.mask_folder)
        return make_fingerprint(weights, self.settings, vocabulary, data)

    def _load(self, name: str, fingerprint: Fingerprint | None) -> DatasetResult | None:
        """What the main process finds on disk; the others, which may see another disk, follow."""
        found = load_result(self.folder, name, fingerprint) if fingerprint else None
        found = comm.all_gather(found)[0]
        if found is not None:
            logger.info(
                "%s was evaluated before, with the same weights, settings and data: its result is "
                "taken from %s.",
                name,
                self.folder,
            )
        return found

    def _save(self, name: str, fingerprint: Fingerprint | None, result: DatasetResult) -> None:
        if fingerprint:
            with self._noting_write_errors():
                save_result(self.folder, name, fingerprint, result)

    @contextlib.contextmanager
    def _noting_write_errors(self) -> Iterator[None]:
        """A full disk must not cost the results that follow: they are in the log at least."""
        try:
            yield
        except OSError as error:
            logger.error("A result could not be stored: %s", error)
            self._write_errors.append(error)

    def _evaluate(
        self, name: str, model: PixelCLIP, loader: Any, evaluator: DatasetEvaluator
    ) -> DatasetResult:
        model.set_vocabulary(**dataset_vocabulary(name, self.vocabulary))
        evaluated: Any = model
        if self.evaluation == "mask_classification":
            evaluated = MaskClassifier(model, fill_missing=self.mask_folder is not None)
        elif isinstance(model, PixelCLIP) and isinstance(evaluator, LabelMapEvaluator):
            evaluated = LabelMapModel(model)
        metrics, speed = run_timed_inference(evaluated, loader, evaluator, name)
        return DatasetResult(metrics, len(DatasetCatalog.get(name)), speed)

    def _report(self, results: Mapping[str, DatasetResult], missing: Mapping[str, str]) -> None:
        if not comm.is_main_process() or not self.names:
            return
        for name, result in results.items():
            # For scripts that read Detectron2's lines; the console has the table.
            logger.info("Results on %s:", name, extra=FILE_ONLY)
            print_csv_format(result.metrics)
        notes = {name: f"not evaluated: {problem}" for name, problem in missing.items()}
        notes.update(_notes_on_size(results))
        rows = make_rows(self.names, results, notes, self.published)
        with self._noting_write_errors():
            os.makedirs(self.folder, exist_ok=True)
            table = write_table(rows, self.folder, self.published_row, self.protocol)
            path = os.path.join(self.folder, "benchmark.md")
            logger.info("The table is in %s:\n\n%s", path, table)
        if self._write_errors:
            error = self._write_errors[0]
            raise ResultNotStoredError(error.errno, error.strerror, error.filename) from error


def dataset_vocabulary(name: str, variant: str = "") -> dict[str, Any]:
    """Arguments of :meth:`PixelCLIP.set_vocabulary` for a registered data set.

    Args:
        name: a data set with ``stuff_classes`` and perhaps a ``background_index``.
        variant: see :func:`pixelclip.data.vocabularies.vocabulary_of_dataset`.

    Raises:
        ValueError: the data set has no class names, or none of this variant.
    """
    return {
        "class_names": list(vocabulary_of_dataset(name, variant)),
        "background_index": getattr(MetadataCatalog.get(name), "background_index", None),
    }


def _warn_of_unused_background(cfg: CfgNode) -> None:
    is_set = cfg.TEST.BACKGROUND_THRESHOLD > NO_THRESHOLD or len(cfg.TEST.BACKGROUND_WORDS)
    names = cfg.DATASETS.TEST
    without = [n for n in names if not hasattr(MetadataCatalog.get(n), "background_index")]
    if is_set and without:
        logger.warning(
            "TEST.BACKGROUND_* has no effect on %s: they have no background class.",
            ", ".join(without),
        )


def describe_protocol(cfg: CfgNode) -> str:
    """One line of Markdown on how images become labels, so that two tables are not mixed up."""
    test = cfg.TEST
    parts = {
        "Dense path": cfg.MODEL.CLIP.DENSE_PATH,
        "views": test.INFERENCE_MODE + (", flipped too" if test.FLIP else ""),
        "templates": cfg.MODEL.PIXELCLIP.TEST_TEMPLATES,
        "class names": test.VOCABULARY or "as published",
    }
    node = cfg.MODEL.PIXELCLIP
    if node.TEST_MASKS != NO_MASKS:
        parts["averaged in masks"] = node.TEST_MASKS
    if node.TEST_MASKS not in (NO_MASKS, GIVEN_MASKS):
        parts["of overlapping ones"] = node.TEST_MASK_OVERLAP
    if node.TEST_MASKS != NO_MASKS or test.EVALUATION == "mask_classification":
        parts["masks scored by"] = node.TEST_MASK_FEATURES
    return ", ".join(f"{name}: {value}" for name, value in parts.items()) + ".\n\n"


def _is_published_protocol(cfg: CfgNode) -> bool:
    """Whether published results may stand next to these; for untrained CLIP they may not."""
    test = cfg.TEST
    masks = cfg.MODEL.PIXELCLIP.TEST_MASKS
    chosen = (test.EVALUATION, test.INFERENCE_MODE, test.FLIP, test.VOCABULARY, masks)
    is_default = chosen == ("segmentation", "whole", False, "", NO_MASKS)
    return is_default and cfg.MODEL.CLIP.DENSE_PATH == "pixelclip"


def result_settings(cfg: CfgNode) -> dict[str, Any]:
    """Every value of a config that can change the result of an evaluation."""
    settings: dict[str, Any] = {
        section: {key: value for key, value in cfg[section].items() if key not in excluded}
        for section, excluded in _WITHOUT_EFFECT.items()
    }
    # The weights count by their content, wherever they came from; the weights for crops are not
    # the model's.
    settings["MODEL"]["CLIP"] = clip = dict(cfg.MODEL.CLIP)
    if cfg.MODEL.PIXELCLIP.TEST_MASK_FEATURES == "pooled":
        del clip["PRETRAINED"]
    is_for_test = {key: key.endswith("_TEST") or key == "FORMAT" for key in cfg.INPUT}
    settings["INPUT"] = {key: cfg.INPUT[key] for key in cfg.INPUT if is_for_test[key]}
    return settings


def takes_given_masks(cfg: CfgNode) -> bool:
    """Whether each test image must come with masks, to be classified or averaged in."""
    is_smoothed = cfg.MODEL.PIXELCLIP.TEST_MASKS == GIVEN_MASKS
    return is_smoothed or cfg.TEST.EVALUATION == "mask_classification"


def _check_whole_image(cfg: CfgNode) -> None:
    if cfg.TEST.INFERENCE_MODE != "whole" or cfg.TEST.FLIP:
        raise ValueError(
            f"TEST.INFERENCE_MODE is {cfg.TEST.INFERENCE_MODE!r} and TEST.FLIP {cfg.TEST.FLIP}; "
            "masks are classified by the features of the whole image: set them to 'whole' and "
            "False."
        )
    if cfg.MODEL.PIXELCLIP.TEST_MASKS != NO_MASKS:
        raise ValueError(
            f"MODEL.PIXELCLIP.TEST_MASKS is {cfg.MODEL.PIXELCLIP.TEST_MASKS!r}; the masks to "
            f"classify are those of TEST.MASKS: set it to {NO_MASKS!r}."
        )


def _notes_on_size(results: Mapping[str, DatasetResult]) -> dict[str, str]:
    """A note on each data set that is not of its official size."""
    notes = {}
    for name, result in results.items():
        benchmark = getattr(MetadataCatalog.get(name), "benchmark", None)
        official = getattr(benchmark, "num_images", ())
        if official and result.num_images not in official:
            notes[name] = f"the official set has {' or '.join(map(str, official))} images"
    return notes
