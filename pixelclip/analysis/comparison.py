"""A data set's images with their labels, and what PixelCLIP and two baselines make of them."""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pixelclip.analysis.baselines import baseline_configs
from pixelclip.analysis.clusters import spread
from pixelclip.checkpoint import PixelCLIPCheckpointer, read_checkpoint
from pixelclip.evaluation.benchmark import dataset_vocabulary
from pixelclip.evaluation.mask_regions import read_label_map
from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.visualization import ImageArray, class_colors, draw_image_grid, overlay_labels

logger = logging.getLogger(__name__)

Labels = NDArray[np.int64]

# More pixels would not be seen in a row of images.
_LONGEST_SIDE = 480
# What covers less of every label map is not worth a place in the legend.
_SMALLEST_IN_LEGEND = 0.01


class ExampleImage(NamedTuple):
    """An image (H, W, 3) as it is shown, and the model's inputs, whose output is (H, W)."""

    pixels: ImageArray
    inputs: dict[str, Any]

    def segment(self, model: PixelCLIP) -> Labels:
        """Label map (H, W) of the model's present classes."""
        return model.segment_labels([self.inputs])[0].cpu().numpy().astype(np.int64)


def load_example_image(cfg: CfgNode, file_name: str) -> ExampleImage:
    """Read an image file; it is shown with at most 480 pixels a side.

    Raises:
        ValueError: the file cannot be read as an image; the text names it.
    """
    try:
        inputs = DatasetMapper(cfg, is_train=False)({"file_name": file_name})
        image = Image.fromarray(read_image(file_name, "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file_name} cannot be read as an image: {error}") from error
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    inputs.update(height=image.height, width=image.width)
    return ExampleImage(np.array(image), inputs)


def build_checkpoint_model(cfg: CfgNode, weights: str) -> PixelCLIP:
    """Build a config's model with as many prompts as a checkpoint has, and load the checkpoint.

    The checkpoint is ours or a published one, the model in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a checkpoint, or does not fit the config.
    """
    tokens = read_checkpoint(weights)["model"].get("class_prompts.tokens")
    keys = "MODEL.PIXELCLIP.NUM_CLUSTERS", "MODEL.PIXELCLIP.PROMPT_LENGTH"
    shape = {} if tokens is None else dict(zip(keys, tokens.shape[:2], strict=True))
    cfg = cfg.clone()
    cfg.defrost()
    changes = {"MODEL.WEIGHTS": weights, **shape}
    cfg.merge_from_list([part for change in changes.items() for part in change])
    model = _build_model(cfg)
    PixelCLIPCheckpointer(model).load(weights)
    return model


def _build_model(cfg: CfgNode) -> PixelCLIP:
    return build_model(cfg).eval()


def draw_comparison(
    cfg: CfgNode,
    dataset: str,
    weights: str,
    num_images: int = 4,
    file_names: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """Draw images next to their labels, the baselines' and PixelCLIP's results, with a legend.

    The baselines are those of :func:`pixelclip.analysis.baselines.baseline_configs`.

    Args:
        cfg, weights: of PixelCLIP's training and checkpoint; the number of prompts may differ.
        dataset: a registered data set with labels, whose classes are the vocabulary.
        num_images: how many, evenly spread over the data set.
        file_names: instead, names of image files with or without folders.
        note: a text below the images, before the names of the weights.

    Raises:
        ValueError, FileNotFoundError: the data set, its images or the checkpoint cannot be used.
    """
    vocabulary = dataset_vocabulary(dataset)
    images, truths = _load_images(cfg, dataset, _choose(dataset, num_images, file_names))
    maps = _segment(cfg, weights, images, vocabulary)
    names = vocabulary["class_names"]
    colors = class_colors(names)
    rows = [
        [image.pixels, *(overlay_labels(image.pixels, one, colors, 0.8) for one in labels)]
        for image, *labels in zip(images, truths, *maps.values(), strict=True)
    ]
    legend = _legend([one for column in (truths, *maps.values()) for one in column], names)
    clip = f"{cfg.MODEL.CLIP.ARCH} {cfg.MODEL.CLIP.PRETRAINED or 'random'}"
    caption = f"{dataset}. Weights: CLIP {clip}; PixelCLIP {short_path(weights)}"
    caption = f"{note}\n{caption}".lstrip("\n")
    titles = ["image", "ground truth", *maps]
    return draw_image_grid(rows, titles, legend, caption, cell_width=1.8)


def _segment(
    cfg: CfgNode, weights: str, images: Sequence[ExampleImage], vocabulary: Mapping[str, Any]
) -> dict[str, list[Labels]]:
    """Label maps of the images by each method."""
    builders = {
        name: functools.partial(_build_model, baseline)
        for name, baseline in baseline_configs(cfg).items()
    }
    builders["PixelCLIP"] = functools.partial(build_checkpoint_model, cfg, weights)
    maps = {}
    for name, build in builders.items():
        model = build()  # one after the other, so that only one is held
        model.set_vocabulary(**vocabulary)
        maps[name] = [one.segment(model) for one in tqdm(images, desc=name, unit=" images")]
    return maps


def short_path(path: str) -> str:
    """A file's name and its folder's."""
    return str(Path(*Path(path).parts[-2:]))


def _choose(dataset: str, count: int, file_names: Sequence[str]) -> list[Mapping[str, Any]]:
    records = DatasetCatalog.get(dataset)
    if not file_names:
        if count < 1:
            raise ValueError(f"{count} images were asked for; expected at least 1.")
        return spread(records, count)
    by_name = {Path(record["file_name"]).name: record for record in records}
    for name in file_names:
        if Path(name).name not in by_name:
            example = next(iter(by_name))
            raise ValueError(f"{dataset} has no image {name!r}; it has, for example, {example}.")
    return [by_name[Path(name).name] for name in file_names]


def _load_images(
    cfg: CfgNode, dataset: str, records: Sequence[Mapping[str, Any]]
) -> tuple[list[ExampleImage], list[Labels]]:
    """Images and their labels, C where void; what cannot be read is named in the log."""
    metadata = MetadataCatalog.get(dataset)
    images, truths = [], []
    for record in records:
        if "sem_seg_file_name" not in record:
            raise ValueError(f"The data set {dataset!r} has no labels to show.")
        try:
            image = load_example_image(cfg, record["file_name"])
            truth = read_label_map(
                record["sem_seg_file_name"], len(metadata.stuff_classes), metadata.ignore_label
            )
        except (OSError, ValueError) as error:
            logger.warning("%s is left out: %s", record["file_name"], error)
            continue
        size = image.inputs["width"], image.inputs["height"]
        shrunk = Image.fromarray(truth.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
        images.append(image)
        truths.append(np.array(shrunk, np.int64))
    if not images:
        raise ValueError(f"None of the {len(records)} images of {dataset} can be read.")
    return images, truths


def _legend(maps: Sequence[Labels], names: Sequence[str]) -> dict[str, list[int]]:
    """Colors of the classes that are not small in at least one label map."""
    shares = [np.bincount(one.reshape(-1), minlength=len(names) + 1) / one.size for one in maps]
    largest = np.max(shares, axis=0)  # (C + 1,)
    colors = class_colors(names).tolist()
    shown = np.flatnonzero(largest[:-1] >= _SMALLEST_IN_LEGEND).tolist()
    return {names[index].split(",")[0].strip(): colors[index] for index in shown}
