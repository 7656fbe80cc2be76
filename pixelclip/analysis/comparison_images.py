"""A data set's pictures with their labels, and what CLIP and PixelCLIP make of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pixelclip.analysis.checkpoint_model import build_checkpoint_model
from pixelclip.analysis.cluster_agreement import spread
from pixelclip.analysis.example_images import ExamplePicture, load_example_picture
from pixelclip.evaluation.benchmark import dataset_vocabulary
from pixelclip.evaluation.mask_regions import read_label_map
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.clip_loader import load_clip_config
from pixelclip.utils.label_overlay import overlay_labels
from pixelclip.utils.visualization import Picture, class_colours, draw_picture_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Labels = NDArray[np.int64]

_TITLES = ("picture", "ground truth", "CLIP", "PixelCLIP")
_OPACITY = 0.8
# What covers less of every label map is not worth a place in the legend.
_SMALLEST_IN_LEGEND = 0.01


@dataclass(frozen=True)
class LabelledPicture:
    """A picture with its true labels (H, W) in 0..C-1, C where void, and each model's labels."""

    picture: ExamplePicture
    truth: Labels
    predictions: list[Labels]

    def label_maps(self) -> list[Labels]:
        """The truth and the predictions."""
        return [self.truth, *self.predictions]


def draw_comparison(
    cfg: CfgNode,
    dataset: str,
    weights: str,
    num_pictures: int = 4,
    file_names: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """Draw pictures beside their labels, CLIP's and PixelCLIP's, with a legend.

    CLIP has the weights ``MODEL.CLIP.PRETRAINED`` and segments by its patch tokens as they are.

    Args:
        cfg: of PixelCLIP's training, but for the number of class prompts.
        dataset: a registered data set with labels, whose classes are the vocabulary.
        weights: PixelCLIP's checkpoint.
        num_pictures: how many, evenly spread over the data set.
        file_names: instead, which ones: names of image files with or without folders.
        note: stands below the pictures, before the names of the weights.

    Raises:
        ValueError: an unknown data set, one without labels, pictures that it does not have or that
            cannot be read, or a checkpoint that does not fit.
        FileNotFoundError: the data set's files or the checkpoint are not there.
    """
    names = dataset_vocabulary(dataset)["class_names"]
    pictures = _load_pictures(cfg, dataset, _choose(dataset, num_pictures, file_names))
    for build in (lambda: build_plain_clip(cfg), lambda: build_checkpoint_model(cfg, weights)):
        model = build()  # one after the other, so that only one is held
        model.set_vocabulary(**dataset_vocabulary(dataset))
        for one in tqdm(pictures, desc="Pictures", unit=" pictures"):
            one.predictions.append(one.picture.segment(model))
    rows = [_paint(one, len(names)) for one in pictures]
    legend = _legend([m for one in pictures for m in one.label_maps()], names)
    clip = cfg.MODEL.CLIP.PRETRAINED or "random"
    caption = (
        f"{note}\n" if note else ""
    ) + f"{dataset}. Weights: CLIP {cfg.MODEL.CLIP.ARCH} {clip}; PixelCLIP {_short(weights)}"
    return draw_picture_grid(rows, _TITLES, legend, caption, cell_width=2.2)


def build_plain_clip(cfg: CfgNode) -> PixelCLIP:
    """CLIP itself, in eval mode: its weights, and for a ViT the last block as it was trained."""
    cfg = cfg.clone()
    cfg.defrost()
    is_vit = "timm_model_name" not in load_clip_config(cfg.MODEL.CLIP.ARCH)["vision_cfg"]
    cfg.MODEL.CLIP.DENSE_PATH = "plain" if is_vit else "pixelclip"
    cfg.MODEL.WEIGHTS = ""
    return build_model(cfg).eval()


def _short(path: str) -> str:
    return str(Path(*Path(path).parts[-2:]))


def _choose(dataset: str, count: int, file_names: Sequence[str]) -> list[Mapping[str, Any]]:
    records = DatasetCatalog.get(dataset)
    if not file_names:
        if count < 1:
            raise ValueError(f"{count} pictures were asked for; expected at least 1.")
        return spread(records, count)
    by_name = {Path(record["file_name"]).name: record for record in records}
    missing = [name for name in file_names if Path(name).name not in by_name]
    if missing:
        raise ValueError(
            f"{dataset} has no picture {missing[0]!r}; it has, for example, {next(iter(by_name))}."
        )
    return [by_name[Path(name).name] for name in file_names]


def _load_pictures(
    cfg: CfgNode, dataset: str, records: Sequence[Mapping[str, Any]]
) -> list[LabelledPicture]:
    """Read pictures and labels; what cannot be read is left out and named in the log."""
    metadata = MetadataCatalog.get(dataset)
    pictures = []
    for record in records:
        if "sem_seg_file_name" not in record:
            raise ValueError(f"The data set {dataset!r} has no labels to show.")
        try:
            picture = load_example_picture(cfg, record["file_name"])
            truth = read_label_map(
                record["sem_seg_file_name"], len(metadata.stuff_classes), metadata.ignore_label
            )
        except (OSError, ValueError) as error:
            logger.warning("%s is left out: %s", record["file_name"], error)
            continue
        pictures.append(LabelledPicture(picture, _shrink(truth, picture.pixels.shape[:2]), []))
    if not pictures:
        raise ValueError(f"None of the {len(records)} pictures of {dataset} can be read.")
    return pictures


def _shrink(labels: Labels, size: tuple[int, int]) -> Labels:
    height, width = size
    image = Image.fromarray(labels.astype(np.int32))
    return np.array(image.resize((width, height), Image.Resampling.NEAREST), np.int64)


def _paint(one: LabelledPicture, num_classes: int) -> list[Picture]:
    colours = class_colours(num_classes)
    pixels = one.picture.pixels
    painted = [overlay_labels(pixels, labels, colours, _OPACITY) for labels in one.label_maps()]
    return [pixels, *painted]


def _legend(maps: Sequence[Labels], names: Sequence[str]) -> dict[str, list[int]]:
    """Colours of the classes that are not small in at least one label map."""
    counts = np.stack([np.bincount(m.reshape(-1), minlength=len(names) + 1) for m in maps])
    shares = counts / counts.sum(axis=1, keepdims=True)  # (maps, C + 1)
    largest = shares.max(axis=0)[: len(names)]
    colours = class_colours(len(names)).tolist()
    is_shown = largest >= _SMALLEST_IN_LEGEND
    return {
        name.split(",")[0].strip(): colour
        for name, colour, shown in zip(names, colours, is_shown, strict=True)
        if shown
    }
