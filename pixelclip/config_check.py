"""Checks of a config before any work, so that a typo does not cost an hour."""

import functools
import math

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils.file_io import PathManager

from pixelclip.modeling.clip_loader import load_clip_config
from pixelclip.modeling.finetune_policy import FINETUNE_POLICIES
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.utils.distributed import COLLECTIVE_TIMEOUT

PRECISIONS = ("float16", "bfloat16")
MASK_SOURCES = ("dataset", "dino")


def check_run_config(cfg: CfgNode) -> None:
    """Refuse what a training or evaluation would only stumble over after work was done.

    Raises:
        ValueError: an unknown architecture, template set or data set, no iterations, no images in a
            test batch, an unknown precision or float16 on the CPU, or as
            :func:`check_model_config` raises.
        FileNotFoundError: ``MODEL.WEIGHTS`` does not exist.
    """
    load_clip_config(cfg.MODEL.CLIP.ARCH)
    check_model_config(cfg)
    if cfg.SOLVER.MAX_ITER < 1:
        raise ValueError(f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; expected at least 1.")
    if cfg.TEST.IMS_PER_BATCH < 1:
        raise ValueError(f"TEST.IMS_PER_BATCH is {cfg.TEST.IMS_PER_BATCH}; expected at least 1.")
    if cfg.MODEL.WEIGHTS and not PathManager.isfile(cfg.MODEL.WEIGHTS):
        raise FileNotFoundError(f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} does not exist.")
    if cfg.SOLVER.STEP_TIME_LIMIT <= 0:
        raise ValueError(
            f"SOLVER.STEP_TIME_LIMIT is {cfg.SOLVER.STEP_TIME_LIMIT}; expected a positive number "
            "of seconds."
        )
    if cfg.SOLVER.CHECKPOINTS_KEPT < 0:
        raise ValueError(
            f"SOLVER.CHECKPOINTS_KEPT is {cfg.SOLVER.CHECKPOINTS_KEPT}; expected 0 (all) or more."
        )
    if not 0 <= cfg.DATALOADER.MAX_BROKEN_SHARE <= 1:
        raise ValueError(
            f"DATALOADER.MAX_BROKEN_SHARE is {cfg.DATALOADER.MAX_BROKEN_SHARE}; expected 0 to 1."
        )
    get_prompt_templates(cfg.MODEL.PIXELCLIP.TEST_TEMPLATES)
    _check_datasets_are_registered((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    _check_precision(cfg)


def check_batch_split(cfg: CfgNode, num_processes: int) -> None:
    """Refuse a batch that cannot be divided into equal parts.

    Raises:
        ValueError: ``SOLVER.ACCUMULATION_STEPS`` is below 1, or does not divide the number of
            images of a process.
    """
    steps, images = cfg.SOLVER.ACCUMULATION_STEPS, cfg.SOLVER.IMS_PER_BATCH
    if steps < 1 or images % (steps * num_processes):
        raise ValueError(
            f"SOLVER.ACCUMULATION_STEPS is {steps} and SOLVER.IMS_PER_BATCH {images}, on "
            f"{num_processes} processes; the steps must divide each process's images."
        )


def _check_precision(cfg: CfgNode) -> None:
    node = cfg.SOLVER.AMP
    check_choice("SOLVER.AMP.PRECISION", node.PRECISION, PRECISIONS)
    if node.ENABLED and node.PRECISION == "float16" and cfg.MODEL.DEVICE == "cpu":
        raise ValueError(
            "SOLVER.AMP.PRECISION is 'float16', which needs a GPU, and MODEL.DEVICE is 'cpu': "
            "choose 'bfloat16'."
        )


def check_model_config(cfg: CfgNode) -> None:
    """Refuse values that no PixelCLIP model can be built with.

    Raises:
        ValueError: naming the key, its value and what was expected.
    """
    _check_sizes(cfg)
    node = cfg.MODEL.PIXELCLIP
    if node.SINKHORN_ITERS < 1 or not 0 < node.ASSIGNMENT_SCALE < math.inf:
        raise ValueError(
            f"MODEL.PIXELCLIP.SINKHORN_ITERS is {node.SINKHORN_ITERS} and ASSIGNMENT_SCALE "
            f"{node.ASSIGNMENT_SCALE}; expected at least 1 and a positive number."
        )
    if len(cfg.MODEL.PIXEL_MEAN) != 3 or len(cfg.MODEL.PIXEL_STD) != 3:
        raise ValueError(
            f"MODEL.PIXEL_MEAN is {cfg.MODEL.PIXEL_MEAN} and PIXEL_STD {cfg.MODEL.PIXEL_STD}; "
            "expected three values each."
        )
    if cfg.INPUT.FORMAT != "RGB":
        raise ValueError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; CLIP takes 'RGB'.")
    check_choice("MODEL.PIXELCLIP.MASK_SOURCE", node.MASK_SOURCE, MASK_SOURCES)
    if node.DINO.NUM_MASKS < 1:
        raise ValueError(
            f"MODEL.PIXELCLIP.DINO.NUM_MASKS is {node.DINO.NUM_MASKS}; expected at least 1."
        )
    check_choice("MODEL.CLIP.FINETUNE", cfg.MODEL.CLIP.FINETUNE, FINETUNE_POLICIES)


def _check_sizes(cfg: CfgNode) -> None:
    node = cfg.MODEL.PIXELCLIP
    for key, size in (
        ("MODEL.CLIP.RESOLUTION", cfg.MODEL.CLIP.RESOLUTION),
        ("MODEL.PIXELCLIP.MASK_RESOLUTION", node.MASK_RESOLUTION),
        ("MODEL.PIXELCLIP.TEST_FEATURE_SIZE", node.TEST_FEATURE_SIZE),
    ):
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"{key} is {size}; expected (height, width), both positive integers.")


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        ValueError: naming the key, the value and the choices.
    """
    if value not in choices:
        raise ValueError(f"{key} is {value!r}; it must be one of {', '.join(choices)}.")


def _check_datasets_are_registered(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in DatasetCatalog.list():
            ours = [n for n in DatasetCatalog.list() if _is_ours(n)]
            raise ValueError(
                f"The data set {name!r} in DATASETS is not registered. PixelCLIP's are "
                f"{', '.join(sorted(ours))}; your own are named by DATASETS.SEM_SEG_FOLDERS."
            )


def _is_ours(dataset_name: str) -> bool:
    loader = DatasetCatalog[dataset_name]
    function = loader.func if isinstance(loader, functools.partial) else loader
    return function.__module__.startswith("pixelclip.")
