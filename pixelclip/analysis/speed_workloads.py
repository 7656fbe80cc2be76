"""What is measured: one training sample made, one training step, one batch of images labeled.

Weights are random and nothing is downloaded; the time does not depend on them.
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pycocotools.mask
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.utils.events import EventStorage
from numpy.typing import NDArray
from PIL import Image

import pixelclip.meta_arch as meta_arch
from pixelclip.analysis.profiling import Stage
from pixelclip.data import augmentation
from pixelclip.data import mapper as mapper_module
from pixelclip.data.images import ImageFile, read_rgb_image
from pixelclip.data.loader import ResumableLoader, SampleStream
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.masks import pack_sample
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.sa1b_files import read_image_bytes
from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.engine.trainer import Trainer
from pixelclip.modeling import inference_views
from pixelclip.modeling.sinkhorn import MaskAssignment

_SEED = 0
# Size of the label maps, about that of COCO-Stuff's.
_OUTPUT_SIZE = (480, 640)
_IMAGES = 8


class Workload(NamedTuple):
    """Something that is done again and again."""

    device: torch.device  # on which it computes
    images: int  # that a step takes
    stages: list[Stage]  # the parts of a step
    step: Callable[[], None]  # GPU work may still run when it returns


def data_workload(cfg: CfgNode, images: Path, folder: Path) -> Workload:
    """One sample as a loading process makes it, in one thread."""
    mapper = MaskDatasetMapper(cfg, True)
    stream = SampleStream(load_sa1b(images), mapper.map_record, _SEED)
    positions = itertools.count()

    def step() -> None:
        with _one_thread():
            stream[next(positions)]

    stages = [
        (mapper_module, "read_image_bytes", "reading files"),
        (mapper_module, "read_annotation_bytes", "reading files"),
        (mapper_module, "parse_mask_rles", "parsing JSON"),
        (ImageFile, "decode", "decoding the JPEG"),
        (augmentation, "cut_out", "resize and crop"),
        (augmentation, "augment_ssd_colors", "weak colors"),
        (mapper, "strong_augmentation", "strong augmentation"),
        (mapper, "_masks", "masks"),
        (mapper, "_to_tensor", "tensors"),
    ]
    return Workload(torch.device("cpu"), 1, stages, step)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def train_workload(cfg: CfgNode, images: Path, folder: Path) -> Workload:
    """One iteration of :class:`Trainer` with ``SOLVER.IMS_PER_BATCH`` images made beforehand."""
    cfg = _without_data_sets(cfg)
    cfg.OUTPUT_DIR = str(folder)
    batch_size = cfg.SOLVER.IMS_PER_BATCH
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    stream = SampleStream(load_sa1b(images), MaskDatasetMapper(cfg, True).map_record, _SEED)
    samples = [stream[position] for position in range(max(_IMAGES, batch_size))]
    for sample in samples:
        del sample["skipped_records"]
    if cfg.MODEL.DEVICE.startswith("cuda"):
        samples = [_pin(pack_sample(sample)) for sample in samples]  # as the loader does

    class TrainerOnSamples(Trainer):
        @classmethod
        def build_train_loader(cls, cfg: CfgNode, seed: int = 0) -> ResumableLoader:
            return ResumableLoader(samples, dict, total_batch_size=batch_size, seed=seed)

    trainer = TrainerOnSamples(cfg)
    trainer.model.train()
    iterations = itertools.count()

    def step() -> None:
        trainer.iter = next(iterations)
        with EventStorage(trainer.iter):
            trainer.run_step()

    stages = [
        *model_stages(trainer.checkpointer.model),  # not the one wrapped for several processes
        (torch.Tensor, "backward", "backward"),
        (trainer._trainer.optimizer, "step", "optimizer"),
    ]
    return Workload(torch.device(cfg.MODEL.DEVICE), batch_size, stages, step)


def _pin(sample: dict[str, Any]) -> dict[str, Any]:
    return {key: x.pin_memory() if hasattr(x, "pin_memory") else x for key, x in sample.items()}


def model_stages(model: Any) -> list[Stage]:
    """What a model's training forward consists of."""
    return [
        (model.teacher, "update", "momentum update"),
        (model, "preprocess", "preprocessing"),
        (model, "training_masks", "masks of the batch"),
        (model.teacher, "forward", "teacher"),
        _stage_of(model.class_prompts, "text encoder"),
        (model.mask_features, "forward", "mask features"),
        (MaskAssignment, "logits", "Sinkhorn"),
        (MaskAssignment, "probabilities", "Sinkhorn"),
        _stage_of(model.image_encoder, "student, forward"),
        (meta_arch, "union_of_masks", "targets"),
        (meta_arch, "merge_masks", "targets"),
        (meta_arch, "decoded_mask_loss", "mask decoder and loss, both ways"),
    ]


def _stage_of(module: torch.nn.Module, name: str) -> Stage:
    """The stage of a module's calls, compiled or not."""
    is_compiled = getattr(module, "_compiled_call_impl", None) is not None
    return (module, "_compiled_call_impl" if is_compiled else "forward", name)


def eval_workload(cfg: CfgNode, images: Path, folder: Path) -> Workload:
    """Label maps, on the CPU, of ``TEST.IMS_PER_BATCH`` images in COCO-Stuff's 171 classes."""
    cfg = _without_data_sets(cfg)
    model = meta_arch.PixelCLIP(cfg, for_training=False).to(cfg.MODEL.DEVICE)
    model.set_vocabulary(list(get_vocabulary("coco_stuff_171")))
    inputs = itertools.cycle(_test_inputs(cfg, images))

    def step() -> None:
        batch = list(itertools.islice(inputs, cfg.TEST.IMS_PER_BATCH))
        for labels in model.segment_labels(batch):
            labels.cpu()

    device = torch.device(cfg.MODEL.DEVICE)
    return Workload(device, cfg.TEST.IMS_PER_BATCH, inference_stages(model), step)


def inference_stages(model: Any) -> list[Stage]:
    """What making label maps consists of."""
    return [
        (inference_views, "make_views", "resizing images"),
        _stage_of(model.image_encoder, "image encoder"),
        (model.text_classifier, "scores", "similarity with the text"),
        (meta_arch, "find_best_classes", "upsampling and labels"),
    ]


def _test_inputs(cfg: CfgNode, images: Path) -> list[dict[str, Any]]:
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    inputs = []
    for record in itertools.islice(load_sa1b(images), _IMAGES):
        pixels = read_rgb_image(read_image_bytes(record))
        resized = resize.get_transform(pixels).apply_image(pixels)
        image = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))  # (3, H, W)
        inputs.append({"image": image, "height": _OUTPUT_SIZE[0], "width": _OUTPUT_SIZE[1]})
    return inputs


def _without_data_sets(cfg: CfgNode) -> CfgNode:
    cfg = copy.deepcopy(cfg)
    cfg.defrost()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    return cfg


# Each takes a config (whose weights and data sets are not used), a folder of images that
# ``load_sa1b`` reads, and a folder for what a training writes.
WORKLOADS = {"data": data_workload, "train": train_workload, "eval": eval_workload}


def write_images(
    folder: Path, count: int, size: tuple[int, int] = (1500, 2250), masks: int = 60
) -> None:
    """Write ``count`` random JPEG files of (height, width) pixels, each with its JSON of masks.

    By default they have the size of SA-1B's images and about as many masks.
    """
    for index in range(count):
        generator = np.random.default_rng(index)
        pixels = _make_image(generator, size)
        Image.fromarray(pixels).save(folder / f"sa_{index}.jpg", quality=85)
        annotations = [{"segmentation": _make_mask(generator, size)} for _ in range(masks)]
        (folder / f"sa_{index}.json").write_text(json.dumps({"annotations": annotations}))


def _make_image(generator: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width, 3) random colors with details of all sizes, as photos have."""
    total = np.zeros((*size, 3), np.float32)
    for cells, strength in ((4, 60), (20, 35), (100, 20), (400, 12)):
        coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        total += (np.asarray(smooth, np.float32) / 127.5 - 1) * strength
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def _make_mask(generator: np.random.Generator, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's run-length code of a ragged shape, of a few pixels up to a third of the image."""
    height, width = size
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    radius = min(size) / 3 * 10 ** -generator.uniform(0, 1.7)
    radii = radius * generator.uniform(0.7, 1.3, len(angles))
    x = (generator.uniform(0, width) + radii * np.cos(angles)).clip(0, width)
    y = (generator.uniform(0, height) + radii * np.sin(angles)).clip(0, height)
    polygon = np.stack([x, y], axis=1).reshape(-1)  # (corners, 2) -> (2 * corners,)
    (code,) = pycocotools.mask.frPyObjects([polygon.tolist()], height, width)
    return {"size": [height, width], "counts": code["counts"].decode()}
