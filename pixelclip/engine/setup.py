"""From command-line arguments to a checked, frozen config."""

import argparse
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from pixelclip.config import add_pixelclip_config
from pixelclip.config_check import check_run_config
from pixelclip.data.datasets.sem_seg_folder import register_sem_seg_folders
from pixelclip.utils.config_files import find_config


def setup(args: argparse.Namespace) -> CfgNode:
    """Merge defaults, ``args.config_file`` and ``args.opts``; set up logging and seeds.

    Raises:
        ValueError, FileNotFoundError: see :func:`load_config`.
    """
    cfg = load_config(args.config_file, args.opts)
    cfg.freeze()
    args.config_file = find_config(args.config_file)
    # Detectron2 sets up its own loggers and fvcore's; ours is to write to the same places.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="pixelclip")
    default_setup(cfg, args)
    allow_tf32()
    return cfg


def load_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Merge the defaults, a YAML file and overrides; check the result, which is not frozen yet.

    Data sets that the config describes are registered. Without a GPU, the CPU takes its place.

    Args:
        config_file: path, or one of PixelCLIP's own; see :func:`find_config`.
        overrides: keys and values in turn, as they would stand on a command line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no file is named.
        ValueError, FileNotFoundError: see :func:`check_run_config`.
    """
    if not config_file:
        raise ValueError("No --config-file was given; try configs/pixelclip_vitb16.yaml.")
    config_file = find_config(config_file)
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_file(config_file, allow_unsafe=False)  # no Python objects, which run code
    merge_overrides(cfg, list(overrides))
    take_cpu_without_gpu(cfg)
    register_sem_seg_folders(cfg.DATASETS.SEM_SEG_FOLDERS)
    check_run_config(cfg)
    return cfg


def take_cpu_without_gpu(cfg: CfgNode) -> None:
    """Let the CPU be ``MODEL.DEVICE`` where that is a GPU and there is none."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"


def merge_overrides(cfg: CfgNode, overrides: list[str]) -> None:
    """Merge the end of a command line, KEY VALUE KEY VALUE ..., into a config.

    Raises:
        ValueError: they are no pairs, a key does not exist, or a value is of another kind.
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
