"""A report of what the class prompts of one or several checkpoints mean.

    prompts.json    everything in numbers
    clusters.png    the same images in the clusters of each checkpoint, with their nearest names
    plane_NAME.png  prompts and class names in a plane, if there is scikit-learn
    usage_NAME.png  the share of each cluster in the data set
    counts_*.json   what was counted over the data set, taken again for the same weights and data
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pixelclip.analysis.clusters import ClusterCounts, count_clusters, measure_agreement, spread
from pixelclip.analysis.comparison import (
    ExampleImage,
    build_checkpoint_model,
    load_example_image,
    short_path,
)
from pixelclip.analysis.figures import draw_cluster_usage, draw_named_clusters, draw_prompt_map
from pixelclip.analysis.prompts import NearName, embed_in_plane, find_nearest_names
from pixelclip.checkpoint import fetch_weights
from pixelclip.data.vocabularies import vocabulary_of_dataset
from pixelclip.evaluation.benchmark import result_settings
from pixelclip.evaluation.result_cache import hash_data, hash_weights, make_fingerprint
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.modeling.text_classifier import build_text_classifier
from pixelclip.utils.atomic_write import write_text
from pixelclip.utils.visualization import save_figure

logger = logging.getLogger(__name__)


class _Findings(NamedTuple):
    """What one checkpoint with K class prompts gave."""

    checkpoint: str
    nearest: list[list[NearName]]  # of each prompt
    prompts: Tensor  # (K, d) unit vectors
    names: Tensor  # (C, d) unit vectors of the class names
    maps: list[NDArray[Any]]  # the clusters of each image
    counts: ClusterCounts | None  # over the data set

    @property
    def cluster_names(self) -> list[str]:
        """The nearest name of each prompt, of synonyms the first."""
        return [names[0].name.split(",")[0].strip() for names in self.nearest]


def report_prompts(
    cfg: CfgNode,
    checkpoints: Sequence[str],
    folder: Path,
    *,
    dataset: str | None = None,
    class_names: Sequence[str] = (),
    images: Sequence[str] = (),
    max_images: int | None = None,
    note: str = "",
) -> list[Path]:
    """Write a report of the class prompts of checkpoints into a folder; return its files.

    Args:
        cfg: of the training, but for the number of class prompts, which each checkpoint has.
        checkpoints: files, or names or addresses; see :func:`pixelclip.checkpoint.fetch_weights`.
        dataset: a labeled data set to compare clusters with.
        class_names: to name prompts with; by default those of the data set.
        images: image files to show the clusters of; by default four of the data set.
        max_images: of the data set; None for all.
        note: text below each figure, above the checkpoint's name.

    Raises:
        ValueError, FileNotFoundError: too little is given, or what cannot be used.
    """
    checkpoints = [fetch_weights(one) for one in checkpoints]  # all, before the first is used
    if missing := [path for path in images if not Path(path).is_file()]:
        raise FileNotFoundError(f"The file {missing[0]!r} does not exist.")
    if dataset is not None:
        class_names, images = _fill(dataset, class_names, images, max_images)
    if not (class_names and images):
        raise ValueError("Without a data set, a vocabulary and images must be given.")
    examples = [load_example_image(cfg, name) for name in images]
    folder.mkdir(parents=True, exist_ok=True)
    findings = []
    for path in tqdm(checkpoints, desc="Checkpoints"):
        model = build_checkpoint_model(cfg, path)
        counts = _count(cfg, model, dataset, max_images, folder) if dataset else None
        findings.append(_look_at(model, path, class_names, examples, counts))
    return _write(findings, examples, class_names, dataset, folder, note)


def _fill(
    dataset: str, class_names: Sequence[str], images: Sequence[str], max_images: int | None
) -> tuple[Sequence[str], Sequence[str]]:
    """Class names and images; what is not given, out of the data set."""
    if max_images is not None and max_images < 1:
        raise ValueError(f"{max_images} images of the data set; expected at least 1.")
    class_names = class_names or vocabulary_of_dataset(dataset)
    records = spread(DatasetCatalog.get(dataset), 4)
    return class_names, images or [record["file_name"] for record in records]


def _count(
    cfg: CfgNode, model: PixelCLIP, dataset: str, max_images: int | None, folder: Path
) -> ClusterCounts:
    """Counts over the data set, which the folder keeps."""
    weights = hash_weights(model)
    path = folder / f"counts_{dataset}_{weights[:12]}.json"
    images = {"images": max_images}
    fingerprint = make_fingerprint(weights, result_settings(cfg), images, hash_data(dataset))
    counts = ClusterCounts.load(path, fingerprint)
    if counts is None:
        counts = count_clusters(cfg, model, dataset, max_images)
        counts.save(path, fingerprint)
    return counts


@torch.no_grad()
def _look_at(
    model: PixelCLIP,
    checkpoint: str,
    class_names: Sequence[str],
    images: Sequence[ExampleImage],
    counts: ClusterCounts | None,
) -> _Findings:
    nearest = find_nearest_names(model, class_names)
    templates = get_prompt_templates(model.text_classifier.templates)
    names = build_text_classifier(model.text_encoder, class_names, templates).cpu()
    model.set_clusters_as_classes()
    maps = [image.segment(model) for image in images]
    return _Findings(checkpoint, nearest, model.text_classifier.features.cpu(), names, maps, counts)


def _write(
    findings: Sequence[_Findings],
    images: Sequence[ExampleImage],
    class_names: Sequence[str],
    dataset: str | None,
    folder: Path,
    note: str,
) -> list[Path]:
    names = _name_checkpoints(findings)
    entries = [
        {"name": name, "file": one.checkpoint, **_describe(one, dataset)}
        for one, name in zip(findings, names, strict=True)
    ]
    content = {"class_names": class_names, "dataset": dataset, "checkpoints": entries}
    write_text(folder / "prompts.json", json.dumps(content, indent=1) + "\n")
    pixels = [image.pixels for image in images]
    maps, cluster_names = zip(*((one.maps, one.cluster_names) for one in findings), strict=True)
    caption = _caption([one.checkpoint for one in findings], note)
    figures = {"clusters": draw_named_clusters(pixels, maps, cluster_names, names, caption)}
    for one, name in zip(findings, names, strict=True):
        figures.update(_draw(one, name, class_names, _caption([one.checkpoint], note)))
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    return [folder / "prompts.json", *(folder / f"{name}.png" for name in figures)]


def _name_checkpoints(findings: Sequence[_Findings]) -> list[str]:
    """Short names: the number of prompts where that tells them apart, else folder and file."""
    names = [f"k = {len(one.prompts)}" for one in findings]
    is_unique = len(set(names)) == len(names)
    return names if is_unique else [short_path(one.checkpoint) for one in findings]


def _caption(checkpoints: Sequence[str], note: str) -> str:
    weights = f"Weights: {', '.join(map(short_path, dict.fromkeys(checkpoints)))}"
    return f"{note}\n{weights}" if note else weights


def _describe(findings: _Findings, dataset: str | None) -> dict[str, Any]:
    """Names of the clusters and, over a data set, their agreement with its classes."""
    clusters: list[dict[str, Any]] = [
        {"nearest": [near._asdict() for near in names]} for names in findings.nearest
    ]
    if findings.counts is None or dataset is None:
        return {"clusters": clusters}
    counts, agreement = findings.counts, measure_agreement(findings.counts.pixels)
    classes = (*MetadataCatalog.get(dataset).stuff_classes, None)  # the last one for index -1
    for index, cluster in enumerate(clusters):
        cluster["share"] = float(counts.usage[index])
        cluster["images"] = int(counts.images[index])
        cluster["class_of_most_pixels"] = classes[agreement.majority[index]]
        cluster["matched_class"] = classes[agreement.matched[index]]
    return {
        "num_images": counts.num_images,
        "skipped_images": counts.skipped,
        "purity": agreement.purity,
        "nmi": agreement.nmi,
        "matched_accuracy": agreement.accuracy,
        "clusters": clusters,
    }


def _draw(
    findings: _Findings, name: str, class_names: Sequence[str], caption: str
) -> dict[str, Any]:
    """Figures of one checkpoint by the names of their files."""
    suffix = "".join(letter if letter.isalnum() else "_" for letter in name.replace(" = ", ""))
    figures = {}
    try:
        places = embed_in_plane(findings.prompts.numpy(), findings.names.numpy())
        names = findings.cluster_names
        figures[f"plane_{suffix}"] = draw_prompt_map(*places, class_names, names, caption)
    except ImportError as error:
        logger.warning("%s", error)
    if findings.counts is not None:
        usage = findings.counts.usage
        figures[f"usage_{suffix}"] = draw_cluster_usage(usage, findings.cluster_names, caption)
    return figures
