"""How the clusters of a model agree with the classes of a labeled data set it has never seen.

Shapes: K clusters, C classes.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy
from tqdm import tqdm

from pixelclip.evaluation.mask_regions import read_label_map
from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.atomic_write import write_text

logger = logging.getLogger(__name__)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClusterCounts:
    """What a model's clusters cover in the images of a data set."""

    pixels: Counts  # (K, C) of each cluster and each class
    void: Counts  # (K,) pixels of each cluster without class
    images: Counts  # (K,) in how many images a cluster is some pixel's nearest one
    num_images: int  # that were looked at
    skipped: int  # images that could not be read

    @property
    def usage(self) -> NDArray[np.float64]:
        """Share (K,) of all pixels, those without class included, that each cluster has."""
        cluster_pixels = self.pixels.sum(axis=1) + self.void
        return cluster_pixels / max(int(cluster_pixels.sum()), 1)

    def save(self, path: Path, fingerprint: Mapping[str, str]) -> None:
        """Keep the counts in a JSON file, with what they depend on."""
        content = {"fingerprint": fingerprint, **asdict(self)}
        write_text(path, json.dumps(content, default=np.ndarray.tolist))

    @classmethod
    def load(cls, path: Path, fingerprint: Mapping[str, str]) -> "ClusterCounts | None":
        """Counts that :meth:`save` kept, if they depend on the same; else None."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = json.loads(path.read_bytes())
            if content.pop("fingerprint") == fingerprint:
                content.update({k: np.array(content[k]) for k in ("pixels", "void", "images")})
                return cls(**content)
        return None


class Agreement(NamedTuple):
    """Agreement of clusters with classes, by pixels that have a class; each in 0..1."""

    purity: float  # accuracy if each cluster meant the class that most of its pixels have
    nmi: float  # mutual information of cluster and class over the mean of their two entropies
    accuracy: float  # that of the best one-to-one match of clusters and classes
    majority: tuple[int, ...]  # of each cluster, the class of most of its pixels; -1 for none
    matched: tuple[int, ...]  # of each cluster, the class that it is matched with; -1 for none


def measure_agreement(pixels: Counts) -> Agreement:
    """Compare clusters with classes by how many pixels (K, C) int64 each two share.

    Raises:
        ValueError: not a single pixel.
    """
    total = int(pixels.sum())
    if not total:
        raise ValueError("Not a single pixel has a class: there is nothing to agree with.")
    clusters, classes = linear_sum_assignment(pixels, maximize=True)
    matched = np.full(len(pixels), -1)
    matched[clusters] = classes
    is_used = pixels.sum(axis=1) > 0
    return Agreement(
        purity=float(pixels.max(axis=1).sum() / total),
        nmi=_normalized_mutual_information(pixels),
        accuracy=float(pixels[clusters, classes].sum() / total),
        majority=tuple(np.where(is_used, pixels.argmax(axis=1), -1).tolist()),
        matched=tuple(matched.tolist()),
    )


def _normalized_mutual_information(pixels: Counts) -> float:
    entropies = entropy(pixels.sum(axis=1)) + entropy(pixels.sum(axis=0))
    if entropies == 0:  # one cluster and one class: they agree
        return 1.0
    shared = entropies - entropy(pixels.reshape(-1))  # (K, C) -> (K*C,)
    return float(2 * max(shared, 0.0) / entropies)


def count_clusters(
    cfg: CfgNode, model: PixelCLIP, dataset_name: str, max_images: int | None = None
) -> ClusterCounts:
    """Segment a labeled data set into a model's clusters and count the pixels they share.

    An image or label that cannot be read is skipped, counted and named in the log.

    Args:
        cfg: says how test images are made.
        model: in eval mode; afterwards its classes are the clusters.
        dataset_name: a registered data set with labels.
        max_images: number of images, evenly spread over the data set; None for all.

    Raises:
        ValueError: the data set has no labels.
    """
    records = spread(DatasetCatalog.get(dataset_name), max_images)
    metadata = MetadataCatalog.get(dataset_name)
    if not records or "sem_seg_file_name" not in records[0]:
        raise ValueError(f"The data set {dataset_name!r} has no labels to compare clusters with.")
    num_classes, ignore_label = len(metadata.stuff_classes), metadata.ignore_label
    mapper = DatasetMapper(cfg, is_train=False)
    model.set_clusters_as_classes()
    pixels = np.zeros((len(model.class_names), num_classes + 1), np.int64)
    images, skipped = np.zeros(len(pixels), np.int64), 0
    for record in tqdm(records, desc=f"Clusters of {dataset_name}", unit=" images"):
        try:
            truth = read_label_map(record["sem_seg_file_name"], num_classes, ignore_label)
            inputs = mapper({"file_name": record["file_name"]})
            image_pixels = _count_image(model, inputs, truth, num_classes + 1)
        except (ValueError, OSError) as error:
            skipped += 1
            logger.warning("%s is skipped: %s", record["file_name"], error)
            continue
        pixels += image_pixels
        images += image_pixels.any(axis=1)
    return ClusterCounts(pixels[:, :-1], pixels[:, -1], images, len(records) - skipped, skipped)


def _count_image(
    model: PixelCLIP, inputs: Mapping[str, Any], truth: NDArray[np.int64], num_columns: int
) -> Counts:
    """Pixels (K, C + 1) of one image; the last column is those without class."""
    clusters = model.segment_labels([inputs])[0].cpu().numpy().astype(np.int64)
    if clusters.shape != truth.shape:
        raise ValueError(
            f"its labels have {truth.shape} pixels (height, width), and it has {clusters.shape}"
        )
    size = num_columns * len(model.class_names)
    pairs = np.bincount((num_columns * clusters + truth).reshape(-1), minlength=size)
    return pairs.reshape(-1, num_columns)  # (size,) -> (K, C + 1)


def spread(records: Sequence[Any], count: int | None) -> list[Any]:
    """Up to ``count`` of the records, evenly spread over them, in their order; None for all."""
    if count is None or count >= len(records):
        return list(records)
    return [records[index] for index in np.linspace(0, len(records) - 1, count).round().astype(int)]
