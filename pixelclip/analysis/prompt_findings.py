"""What one checkpoint's class prompts mean: in words, in pictures, and over a data set."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import Tensor

from pixelclip.analysis.checkpoint_model import build_checkpoint_model
from pixelclip.analysis.cluster_agreement import (
    ClusterCounts,
    count_clusters,
    load_counts,
    save_counts,
    spread,
)
from pixelclip.analysis.cluster_images import NamedClusters
from pixelclip.analysis.example_images import ExamplePicture
from pixelclip.analysis.prompt_names import NearName, find_nearest_names
from pixelclip.data.vocabularies import vocabulary_of_dataset
from pixelclip.evaluation.benchmark import result_settings
from pixelclip.evaluation.result_cache import hash_data, hash_weights, make_fingerprint
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.text_classifier import build_text_classifier

logger = logging.getLogger(__name__)

_PICTURES_SHOWN = 4
_NAMES_OF_A_PROMPT = 3


@dataclass(frozen=True)
class Subject:
    """What checkpoints are looked at with.

    Attributes:
        class_names: C names of any vocabulary, to name prompts with.
        pictures: image files to show the clusters of.
        dataset: a labelled data set to compare clusters with; None for none.
        max_images: of the data set; None for all.
    """

    class_names: tuple[str, ...]
    pictures: tuple[str, ...]
    dataset: str | None = None
    max_images: int | None = None


@dataclass(frozen=True)
class Findings:
    """What one checkpoint gave.

    Attributes:
        checkpoint: the file.
        nearest: of each of K prompts, the nearest class names, the nearest first.
        prompts: (K, d) unit vectors.
        names: (C, d) unit vectors.
        maps: the clusters of each picture.
        counts: over the data set; None without one.
    """

    checkpoint: str
    nearest: list[list[NearName]]
    prompts: Tensor
    names: Tensor
    maps: list[NamedClusters]
    counts: ClusterCounts | None

    @property
    def cluster_names(self) -> list[str]:
        """The nearest name of each prompt, of synonyms the first."""
        return [_first_synonym(names[0].name) for names in self.nearest]


def choose_subject(
    dataset: str | None,
    class_names: Sequence[str] = (),
    pictures: Sequence[str] = (),
    max_images: int | None = None,
) -> Subject:
    """Fill what is not given from the data set: its class names, and some of its pictures.

    Raises:
        ValueError: neither a data set nor names and pictures, or an unknown data set.
        FileNotFoundError: the data set's files, or pictures, are not there.
    """
    for path in pictures:
        if not Path(path).is_file():
            raise FileNotFoundError(f"The picture {path!r} does not exist.")
    if dataset is None and not (class_names and pictures):
        raise ValueError("Without a data set, a vocabulary and pictures must be given.")
    if max_images is not None and max_images < 1:
        raise ValueError(f"{max_images} images of the data set; expected at least 1.")
    if dataset is not None:
        class_names = class_names or vocabulary_of_dataset(dataset)
        records = DatasetCatalog.get(dataset)
        pictures = pictures or [r["file_name"] for r in spread(records, _PICTURES_SHOWN)]
    return Subject(tuple(class_names), tuple(pictures), dataset, max_images)


@torch.no_grad()
def look_at_checkpoint(
    cfg: CfgNode,
    checkpoint: str,
    subject: Subject,
    pictures: Sequence[ExamplePicture],
    folder: Path,
) -> Findings:
    """Find out what a checkpoint's class prompts mean.

    Args:
        cfg: of the training, but for the number of class prompts.
        checkpoint: a file.
        subject: what to look at it with.
        pictures: those of the subject.
        folder: where counts over the data set are kept, and taken from where nothing has changed.

    Raises:
        ValueError: the checkpoint does not fit the config, or has no class prompts.
    """
    model = build_checkpoint_model(cfg, checkpoint)
    nearest = find_nearest_names(model, subject.class_names, _NAMES_OF_A_PROMPT)
    templates = get_prompt_templates(model.test_templates)
    names = [_first_synonym(of_prompt[0].name) for of_prompt in nearest]
    counts = _count(cfg, model, subject, folder)
    model.set_clusters_as_classes()
    return Findings(
        checkpoint=checkpoint,
        nearest=nearest,
        prompts=model.text_classifier.cpu(),
        names=build_text_classifier(model.text_encoder, subject.class_names, templates).cpu(),
        maps=[NamedClusters(picture.segment(model), names) for picture in pictures],
        counts=counts,
    )


def _first_synonym(name: str) -> str:
    return name.split(",")[0].strip()


def _count(cfg: CfgNode, model: PixelCLIP, subject: Subject, folder: Path) -> ClusterCounts | None:
    if subject.dataset is None:
        return None
    weights = hash_weights(model)
    path = folder / f"counts_{subject.dataset}_{weights[:12]}.json"
    fingerprint = make_fingerprint(
        weights, result_settings(cfg), {"images": subject.max_images}, hash_data(subject.dataset)
    )
    counts = load_counts(path, fingerprint)
    if counts is not None:
        logger.info("The counts over %s are taken from %s", subject.dataset, path)
        return counts
    counts = count_clusters(cfg, model, subject.dataset, subject.max_images)
    save_counts(path, fingerprint, counts)
    return counts
