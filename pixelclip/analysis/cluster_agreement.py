"""How the clusters of a model lie to the classes of a labelled data set, which it has never seen.

Shapes: K clusters, C classes.
"""

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy
from tqdm import tqdm

from pixelclip.evaluation.mask_regions import read_label_map
from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.atomic_write import atomic_writer

logger = logging.getLogger(__name__)

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClusterCounts:
    """What a model's clusters cover in the images of a data set.

    Attributes:
        pixels: (K, C) of each cluster and each class.
        void: (K,) pixels of each cluster without class.
        images: (K,) in how many images a cluster is some pixel's nearest one.
        num_images: how many images were looked at.
        skipped: how many could not be read.
    """

    pixels: Counts
    void: Counts
    images: Counts
    num_images: int
    skipped: int

    @property
    def usage(self) -> NDArray[np.float64]:
        """Share (K,) of all pixels, those without class included, that each cluster has."""
        of_clusters = self.pixels.sum(axis=1) + self.void
        return of_clusters / max(int(of_clusters.sum()), 1)


@dataclass(frozen=True)
class Agreement:
    """Agreement of clusters with classes, by pixels that have a class; each in 0..1.

    Attributes:
        purity: accuracy if each cluster meant the class that most of its pixels have.
        nmi: mutual information of cluster and class over the mean of their two entropies.
        accuracy: that of the best one-to-one match of clusters and classes.
        majority: for each cluster the class of most of its pixels; -1 for a cluster without.
        matched: for each cluster the class that it is matched with; -1 for none.
    """

    purity: float
    nmi: float
    accuracy: float
    majority: tuple[int, ...]
    matched: tuple[int, ...]


def measure_agreement(pixels: Counts) -> Agreement:
    """Compare clusters with classes.

    Args:
        pixels: (K, C) int64, how many pixels each cluster and each class share.

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
        nmi=_normalised_mutual_information(pixels),
        accuracy=float(pixels[clusters, classes].sum() / total),
        majority=tuple(np.where(is_used, pixels.argmax(axis=1), -1).tolist()),
        matched=tuple(matched.tolist()),
    )


def _normalised_mutual_information(pixels: Counts) -> float:
    of_cluster, of_class = entropy(pixels.sum(axis=1)), entropy(pixels.sum(axis=0))
    if of_cluster + of_class == 0:  # one cluster and one class: they agree
        return 1.0
    shared = of_cluster + of_class - entropy(pixels.reshape(-1))  # (K, C) -> (K*C,)
    return float(2 * max(shared, 0.0) / (of_cluster + of_class))


def count_clusters(
    cfg: CfgNode, model: PixelCLIP, dataset_name: str, max_images: int | None = None
) -> ClusterCounts:
    """Segment a labelled data set into a model's clusters and count who shares pixels with whom.

    An image or label that cannot be read is skipped, counted and named in the log.

    Args:
        cfg: says how test images are made.
        model: in eval mode; afterwards its classes are the clusters.
        dataset_name: a registered data set with labels.
        max_images: take so many images, evenly spread over the data set; None for all.

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
    num_clusters = len(model.class_names)
    table = np.zeros((num_clusters, num_classes + 1), np.int64)
    images, skipped = np.zeros(num_clusters, np.int64), 0
    for record in tqdm(records, desc=f"Clusters of {dataset_name}", unit=" images"):
        try:
            truth = read_label_map(record["sem_seg_file_name"], num_classes, ignore_label)
            of_image = _count_image(
                model, mapper({"file_name": record["file_name"]}), truth, num_classes + 1
            )
        except (ValueError, OSError) as error:
            skipped += 1
            logger.warning("%s is skipped: %s", record["file_name"], error)
            continue
        table += of_image
        images += of_image.any(axis=1)
    return ClusterCounts(
        table[:, :num_classes], table[:, num_classes], images, len(records) - skipped, skipped
    )


def _count_image(
    model: PixelCLIP, inputs: Mapping[str, Any], truth: NDArray[np.int64], num_columns: int
) -> Counts:
    """Pixels (K, C + 1) of one image; the last column is those without class."""
    num_clusters = len(model.class_names)
    clusters = model.segment_labels([inputs])[0].cpu().numpy().astype(np.int64)
    if clusters.shape != truth.shape:
        raise ValueError(
            f"its labels have {truth.shape} pixels (height, width), and it has {clusters.shape}"
        )
    size = num_columns * num_clusters
    pairs = np.bincount((num_columns * clusters + truth).reshape(-1), minlength=size)
    return pairs.reshape(num_clusters, num_columns)  # (size,) -> (K, C + 1)


def spread(records: Iterable[Any], count: int | None) -> list[Any]:
    """Up to ``count`` of the records, evenly spread over them, in their order; None for all."""
    chosen = list(records)
    if count is None or count >= len(chosen):
        return chosen
    return [chosen[index] for index in np.linspace(0, len(chosen) - 1, count).round().astype(int)]


def save_counts(path: Path, fingerprint: Mapping[str, str], counts: ClusterCounts) -> None:
    """Keep counts in a JSON file, with what they depend on."""
    values = dataclasses.asdict(counts).items()
    plain = {
        key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values
    }
    with atomic_writer(path) as file:
        file.write(json.dumps({"fingerprint": dict(fingerprint), **plain}).encode())


def load_counts(path: Path, fingerprint: Mapping[str, str]) -> ClusterCounts | None:
    """Counts that :func:`save_counts` kept, if they depend on the same; else None."""
    try:
        content = json.loads(path.read_bytes())
        if content.pop("fingerprint") != fingerprint:
            return None
        arrays = {key: np.array(content.pop(key), np.int64) for key in ("pixels", "void", "images")}
        return ClusterCounts(**arrays, num_images=content["num_images"], skipped=content["skipped"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s holds no counts (%r): counting anew.", path, error)
        return None
