"""From command-line arguments to a checked, frozen config."""

import argparse

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from pixelclip.config import add_pixelclip_config
from pixelclip.data.datasets.sem_seg_folder import register_sem_seg_folders
from pixelclip.modeling.clip_loader import load_clip_config
from pixelclip.modeling.finetune_policy import FINETUNE_POLICIES
from pixelclip.modeling.prompt_templates import get_prompt_templates


def setup(args: argparse.Namespace) -> CfgNode:
    """Merge defaults, ``args.config_file`` and ``args.opts``; set up logging and seeds.

    Raises:
        ValueError: a value that no run could use; see :func:`check_config`.
    """
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    if not args.config_file:
        raise ValueError("No --config-file was given; try configs/pixelclip_vitb16.yaml.")
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    register_sem_seg_folders(cfg.DATASETS.SEM_SEG_FOLDERS)
    check_config(cfg)
    cfg.freeze()
    # Detectron2 sets up its own loggers and fvcore's; ours is to write to the same places.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="pixelclip")
    default_setup(cfg, args)
    allow_tf32()
    return cfg


def allow_tf32() -> None:
    """Let float32 matrix products and convolutions on CUDA use TF32, as the published training."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def check_config(cfg: CfgNode) -> None:
    """Refuse values that would only fail after work was done.

    Raises:
        ValueError: an unknown architecture, fine-tune policy, template set or data set, no
            iterations, or AMP on the CPU.
        FileNotFoundError: ``MODEL.WEIGHTS`` does not exist.
    """
    load_clip_config(cfg.MODEL.CLIP.ARCH)
    if cfg.MODEL.CLIP.FINETUNE not in FINETUNE_POLICIES:
        raise ValueError(
            f"MODEL.CLIP.FINETUNE is {cfg.MODEL.CLIP.FINETUNE!r}; it must be one of "
            f"{', '.join(FINETUNE_POLICIES)}."
        )
    if cfg.SOLVER.MAX_ITER < 1:
        raise ValueError(f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; expected at least 1.")
    if cfg.MODEL.WEIGHTS and not PathManager.isfile(cfg.MODEL.WEIGHTS):
        raise FileNotFoundError(f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} does not exist.")
    get_prompt_templates(cfg.MODEL.PIXELCLIP.TEST_TEMPLATES)
    check_datasets_are_registered((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
        raise ValueError(
            "SOLVER.AMP.ENABLED needs a GPU, and MODEL.DEVICE is 'cpu': set it to False."
        )


def check_datasets_are_registered(names: tuple[str, ...]) -> None:
    """Refuse names that are not in Detectron2's catalog.

    Raises:
        ValueError: naming the data set and those that are registered by PixelCLIP.
    """
    for name in names:
        if name not in DatasetCatalog.list():
            known = [n for n in DatasetCatalog.list() if "sem_seg" in n or n.startswith("sa1b")]
            raise ValueError(
                f"The data set {name!r} in DATASETS is not registered. Registered are "
                f"{', '.join(sorted(known))} and Detectron2's own."
            )
