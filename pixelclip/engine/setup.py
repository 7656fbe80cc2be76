"""From command-line arguments to a frozen config, checked so that a typo does not cost an hour."""

import argparse
import contextlib
import functools
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from pixelclip.checkpoint import fetch_weights, get_model, list_models
from pixelclip.checkpoint.model_zoo import SCHEME
from pixelclip.checkpoint.saved_config import merge_config_file, merge_saved_config
from pixelclip.config import (
    add_pixelclip_config,
    check_choice,
    check_model_config,
    take_renamed_keys,
)
from pixelclip.data.datasets import register_sem_seg_folders
from pixelclip.modeling.clip_loader import load_clip_config
from pixelclip.modeling.prompt_templates import get_prompt_templates
from pixelclip.utils.console import shorten_console_output
from pixelclip.utils.installation import find_config

PRECISIONS = ("float16", "bfloat16")


def setup(args: argparse.Namespace) -> CfgNode:
    """Load the config of a command line, frozen; set up logging and seeds.

    Args:
        args: ``eval_only``, and what :func:`load_config_of` takes.

    Raises:
        ValueError, FileNotFoundError: see :func:`load_config`.
    """
    cfg = load_config_of(args)
    cfg.freeze()
    if args.config_file:
        args.config_file = find_config(args.config_file)
    _set_up_loggers(cfg.OUTPUT_DIR)
    default_setup(cfg, args)
    allow_tf32()
    return cfg


def _set_up_loggers(output_dir: str) -> None:
    """Let ours, Detectron2's and fvcore's write to log.txt, and little of it to the console."""
    rank = comm.get_rank()
    # default_setup makes the same two calls, which then have no effect any more: it would write
    # everything to the console.
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir, distributed_rank=rank)
    setup_logger(output_dir, distributed_rank=rank, name="pixelclip")
    shorten_console_output()


def load_config_of(args: argparse.Namespace) -> CfgNode:
    """Load the config that a command line describes.

    Args:
        args: ``config_file``, ``weights`` for ``MODEL.WEIGHTS`` and ``output`` for ``OUTPUT_DIR``
            ("" for those of the config), and ``opts``, which see :func:`load_config`.

    Raises:
        ValueError, FileNotFoundError: see :func:`load_config`.
    """
    overrides = [*args.opts, *(("OUTPUT_DIR", args.output) if args.output else ())]
    return load_config(args.config_file, overrides, args.weights)


def load_config(config_file: str = "", overrides: Sequence[str] = (), weights: str = "") -> CfgNode:
    """Merge the defaults, a YAML file and overrides; check the result, which is not frozen yet.

    Data sets that the config describes are registered. Without a GPU, the CPU takes its place.

    Args:
        config_file: path, or one of PixelCLIP's own; see :func:`find_config`. By default, the
            config that belongs to the weights.
        overrides: keys and values in turn, as they would stand on a command line.
        weights: for ``MODEL.WEIGHTS``; see :func:`fetch_weights` for all that they can be.

    Raises:
        ValueError, FileNotFoundError: there is no such file, or no config was given and the
            weights bring none; or see :func:`check_run_config`.
        OSError: the weights cannot be downloaded, to find their config.
    """
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    given = weights = weights or _find_weights(overrides)
    if weights.removeprefix(SCHEME) in list_models():
        model = get_model(weights)
        config_file, weights = config_file or model.config_file, model.address
    _merge_base_config(cfg, config_file, weights)
    merge_overrides(cfg, list(overrides))
    if given:
        cfg.MODEL.WEIGHTS = weights
    cfg = take_renamed_keys(cfg)
    take_cpu_without_gpu(cfg)
    register_sem_seg_folders(cfg.DATASETS.SEM_SEG_FOLDERS)
    check_run_config(cfg)
    return cfg


def _merge_base_config(cfg: CfgNode, config_file: str, weights: str) -> None:
    if config_file:
        merge_config_file(cfg, config_file)
    elif weights:
        merge_saved_config(cfg, fetch_weights(weights))
        _leave_out_unknown_datasets(cfg)
    else:
        raise ValueError(
            "Neither a --config-file nor --weights, which bring theirs, were given; try "
            "--config-file configs/pixelclip_vitb16.yaml."
        )


def _find_weights(overrides: Sequence[str]) -> str:
    """The last value of ``MODEL.WEIGHTS``, or ""."""
    pairs = dict(zip(overrides[::2], overrides[1::2], strict=False))
    return pairs.get("MODEL.WEIGHTS", "")


def _leave_out_unknown_datasets(cfg: CfgNode) -> None:
    """What a model was trained on need not be on the machine that uses it."""
    folders = []
    for path in cfg.DATASETS.SEM_SEG_FOLDERS:
        with contextlib.suppress(OSError, ValueError):  # missing, or another one by now
            register_sem_seg_folders([path])
            folders.append(find_config(path))
    cfg.DATASETS.SEM_SEG_FOLDERS = tuple(folders)
    for key in ("TRAIN", "TEST"):
        known = [name for name in cfg.DATASETS[key] if name in DatasetCatalog.list()]
        cfg.DATASETS[key] = tuple(known)


def take_cpu_without_gpu(cfg: CfgNode) -> None:
    """Let the CPU be ``MODEL.DEVICE`` where that is a GPU and there is none."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"


def merge_overrides(cfg: CfgNode, overrides: list[str]) -> None:
    """Merge the end of a command line, KEY VALUE KEY VALUE ..., into a config.

    Raises:
        ValueError: they are not pairs, a key does not exist, or a value is of another kind.
    """
    flags = [word for word in overrides if word.startswith("--")]
    if flags or len(overrides) % 2:
        raise ValueError(
            f"The overrides {overrides} are not pairs of a key and a value"
            + (f": put the flag {flags[0]} before them." if flags else ".")
        )
    try:
        cfg.merge_from_list(overrides)
    except AssertionError as error:  # of yacs
        raise ValueError(f"{error}. PixelCLIP's own keys are in pixelclip/config.py.") from error
    except ValueError as error:
        raise ValueError(
            f"{error}. A tuple of one value needs a comma and quotes for the shell: "
            "DATASETS.TEST \"('voc_2012_test_sem_seg',)\"."
        ) from error


def allow_tf32() -> None:
    """Let float32 matrix products and convolutions on CUDA use TF32, as the published training."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def check_run_config(cfg: CfgNode) -> None:
    """Refuse what a training or evaluation would only stumble over after work was done.

    Raises:
        ValueError: an unknown architecture, template set or data set, no iterations, no images in a
            test batch, an unknown precision or float16 on the CPU, or as
            :func:`check_model_config` raises.
        FileNotFoundError, ConnectionError: ``MODEL.WEIGHTS`` does not exist, or is an address
            that cannot be downloaded.
    """
    load_clip_config(cfg.MODEL.CLIP.ARCH)
    check_model_config(cfg)
    if cfg.SOLVER.MAX_ITER < 1:
        raise ValueError(f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; expected at least 1.")
    if cfg.TEST.IMS_PER_BATCH < 1:
        raise ValueError(f"TEST.IMS_PER_BATCH is {cfg.TEST.IMS_PER_BATCH}; expected at least 1.")
    fetch_weights(cfg.MODEL.WEIGHTS)  # before processes start, which then find it in the cache
    if not 0 < cfg.SOLVER.STEP_TIME_LIMIT < 1e9:
        raise ValueError(
            f"SOLVER.STEP_TIME_LIMIT is {cfg.SOLVER.STEP_TIME_LIMIT}; expected a positive number "
            "of seconds below 10^9."
        )
    if cfg.SOLVER.MAX_TO_KEEP < 0:
        raise ValueError(
            f"SOLVER.MAX_TO_KEEP is {cfg.SOLVER.MAX_TO_KEEP}; expected 0 (all) or more."
        )
    fraction = cfg.DATALOADER.MAX_CORRUPT_FRACTION
    if not 0 <= fraction <= 1:
        raise ValueError(f"DATALOADER.MAX_CORRUPT_FRACTION is {fraction}; expected 0 to 1.")
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
