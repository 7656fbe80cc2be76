"""What is measured: one training sample made, one training step, one batch of images labelled.

Weights are random and nothing is downloaded; the time does not depend on them.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

import pixelclip.meta_arch as meta_arch
from pixelclip.analysis.stage_clock import Stage
from pixelclip.data import mapper as mapper_module
from pixelclip.data import weak_augmentation
from pixelclip.data.image_reading import Photograph, read_rgb_image
from pixelclip.data.loader import ResumableLoader, SampleStream
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.record_reading import read_image_bytes
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.engine.trainer import Trainer

_SEED = 0
# Test images of this size and so many classes: those of COCO-Stuff.
_OUTPUT_SIZE = (480, 640)
_VOCABULARY = "coco_stuff_171"
_IMAGES = 8


class Workload(Protocol):
    """Something that is done again and again.

    Attributes:
        device: on which it computes.
        images: how many images a step takes.
        stages: its parts.
    """

    device: torch.device
    images: int
    stages: list[Stage]

    def step(self) -> None:
        """Do it once; GPU work may still run when it returns."""


def build_workload(command: str, cfg: CfgNode, photographs: Path, folder: Path) -> Workload:
    """Build what a command measures.

    Args:
        command: "data", "train" or "eval".
        cfg: a config; its weights and data sets are not used.
        photographs: a folder that ``load_sa1b`` reads.
        folder: for whatever a training writes.

    Raises:
        FileNotFoundError: there are no photographs.
    """
    if command == "data":
        return DataWorkload(cfg, photographs)
    if command == "train":
        return TrainWorkload(cfg, photographs, folder)
    return EvalWorkload(cfg, photographs)


class DataWorkload:
    """One sample as a loading process makes it, in one thread."""

    def __init__(self, cfg: CfgNode, photographs: Path) -> None:
        self.device, self.images = torch.device("cpu"), 1
        self._mapper = mapper = MaskDatasetMapper(cfg, True)
        self._stream = SampleStream(load_sa1b(photographs), mapper.map_record, _SEED)
        self._position = 0
        self.stages = [
            Stage(mapper_module, "read_image_bytes", "reading files"),
            Stage(mapper_module, "read_annotation_bytes", "reading files"),
            Stage(mapper_module, "parse_mask_rles", "parsing JSON"),
            Stage(Photograph, "decode", "decoding the JPEG"),
            Stage(weak_augmentation, "cut_out", "resize and crop"),
            Stage(weak_augmentation, "augment_ssd_colors", "weak colours"),
            Stage(mapper, "strong_augmentation", "strong augmentation"),
            Stage(mapper, "_masks", "masks"),
            Stage(mapper, "_to_tensor", "tensors"),
        ]

    def step(self) -> None:
        """Make the next sample."""
        with _one_thread():
            self._stream[self._position]
        self._position += 1


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


def _trainer_on(samples: list[dict[str, Any]]) -> type[Trainer]:
    """A trainer whose samples are made beforehand."""

    class TrainerOnSamples(Trainer):
        @classmethod
        def build_train_loader(cls, cfg: CfgNode, seed: int = 0) -> ResumableLoader:
            size = cfg.SOLVER.IMS_PER_BATCH
            return ResumableLoader(samples, dict, total_batch_size=size, seed=seed)

    return TrainerOnSamples


class TrainWorkload:
    """One iteration of :class:`Trainer` with ``SOLVER.IMS_PER_BATCH`` images."""

    def __init__(self, cfg: CfgNode, photographs: Path, folder: Path) -> None:
        cfg = _without_data_sets(cfg)
        cfg.OUTPUT_DIR = str(folder)
        self.device, self.images = torch.device(cfg.MODEL.DEVICE), cfg.SOLVER.IMS_PER_BATCH
        mapper = MaskDatasetMapper(cfg, True)
        stream = SampleStream(load_sa1b(photographs), mapper.map_record, _SEED)
        samples = [stream[position] for position in range(max(_IMAGES, self.images))]
        for sample in samples:
            del sample["skipped_records"]
        self._trainer = _trainer_on(samples)(cfg)
        self._trainer.model.train()
        self._iteration = 0
        self.stages = _training_stages(self._trainer)

    def step(self) -> None:
        """Train one iteration."""
        self._trainer.iter = self._iteration
        with EventStorage(self._iteration):
            self._trainer.run_step()
        self._iteration += 1


def _training_stages(trainer: Trainer) -> list[Stage]:
    model: Any = trainer.model
    return [
        Stage(model.teacher, "update", "momentum update"),
        Stage(model, "preprocess", "preprocessing"),
        Stage(model, "training_masks", "masks of the batch"),
        Stage(model.teacher, "forward", "teacher"),
        _stage_of(model.class_prompts, "text encoder"),
        Stage(model, "score_masks", "pooling and Sinkhorn"),
        Stage(model, "assign_masks", "pooling and Sinkhorn"),
        _stage_of(model.image_encoder, "student, forward"),
        Stage(meta_arch, "cover_images", "targets"),
        Stage(meta_arch, "merge_masks", "targets"),
        Stage(meta_arch, "decoded_mask_loss", "mask decoder and loss, both ways"),
        Stage(torch.Tensor, "backward", "backward"),
        Stage(trainer._trainer.optimizer, "step", "optimizer"),
    ]


def _stage_of(module: torch.nn.Module, name: str) -> Stage:
    """The stage of a module's calls, compiled or not."""
    is_compiled = getattr(module, "_compiled_call_impl", None) is not None
    return Stage(module, "_compiled_call_impl" if is_compiled else "forward", name)


class EvalWorkload:
    """Label maps, on the CPU, of ``TEST.IMS_PER_BATCH`` images in COCO-Stuff's 171 classes."""

    def __init__(self, cfg: CfgNode, photographs: Path) -> None:
        cfg = _without_data_sets(cfg)
        self.device, self.images = torch.device(cfg.MODEL.DEVICE), cfg.TEST.IMS_PER_BATCH
        self._model: Any = build_model(cfg).eval()
        self._model.set_vocabulary(list(get_vocabulary(_VOCABULARY)))
        inputs = _test_inputs(cfg, photographs)
        self._batches = [
            [inputs[(first + index) % len(inputs)] for index in range(self.images)]
            for first in range(len(inputs))
        ]
        self._done = 0
        self.stages = [
            Stage(meta_arch, "make_views", "resizing images"),
            _stage_of(self._model.image_encoder, "image encoder"),
            Stage(self._model, "class_scores", "similarity with the text"),
            Stage(meta_arch, "label_views", "upsampling and labels"),
        ]

    def step(self) -> None:
        """Label the next batch."""
        batch = self._batches[self._done % len(self._batches)]
        for labels in self._model.segment_labels(batch):
            labels.cpu()
        self._done += 1


def _test_inputs(cfg: CfgNode, photographs: Path) -> list[dict[str, Any]]:
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    inputs = []
    for record in islice(load_sa1b(photographs), _IMAGES):
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
