"""A tiny training for processes of their own, which tests kill, starve and freeze.

The processes are forked off a server that has imported everything and computed nothing: they start
in a moment, and a SIGKILL hits a process as real as any.
"""

import json
import multiprocessing
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from detectron2.config import CfgNode

from pixelclip.engine import Trainer
from pixelclip.engine.launch import create_local_process_group
from tests.conftest import (
    SMALL_TRAINING,
    TINY_VIT,
    make_tiny_config,
    register_test_set,
    write_images,
)

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
TEST_SET = "small_training_sem_seg"


def prepare(folder: Path, num_images: int = 6) -> None:
    """Everything that :func:`make_config` needs, below a folder."""
    write_images(folder / "images", num_images)
    (folder / "tiny_vit.json").write_text(json.dumps(TINY_VIT))


def make_config(folder: Path, output: Path, overrides: tuple = ()) -> CfgNode:
    """The config of a training on what was prepared below a folder."""
    os.environ["SAM_DATASETS"] = str(folder / "images")
    cfg = make_tiny_config(str(folder / "tiny_vit.json"))
    cfg.DATASETS.TRAIN = ("sa1b_train",)
    cfg.merge_from_list([*SMALL_TRAINING, *overrides])
    cfg.OUTPUT_DIR = str(output)
    output.mkdir(exist_ok=True)
    return cfg


def train(cfg: CfgNode, hooks: tuple = ()) -> Trainer:
    """Train from the last checkpoint, or from the start."""
    # As in any training on Linux; a server's child would start a server of its own for its loader.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    torch.manual_seed(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.register_hooks(list(hooks))
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer


def use_test_set(cfg: CfgNode, folder: Path) -> None:
    """Evaluate on three images below a folder, which are drawn where they are missing."""
    if not folder.exists():
        register_test_set(folder, TEST_SET)
    cfg.DATASETS.TEST = (TEST_SET,)


def speak_to(path: Path) -> None:
    """Send what this process prints to a file."""
    file = open(path, "ab", buffering=0)  # noqa: SIM115 (for as long as the process lives)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)


def join_group(rank: int, number: int, port: int, time_limit: float = 300.0) -> None:
    """Become one of several processes on the CPU; collectives wait for ``time_limit`` seconds."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        world_size=number,
        rank=rank,
        timeout=timedelta(seconds=time_limit),
    )
    create_local_process_group(number)
