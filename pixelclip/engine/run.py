"""The commands ``pixelclip train`` and ``pixelclip evaluate``, from parsed arguments on."""

import argparse
import logging
import os
import sys
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.engine.hooks import ProgressBar
from pixelclip.engine.interruption import TrainingInterrupted
from pixelclip.engine.launch import launch
from pixelclip.engine.setup import setup
from pixelclip.engine.trainer import Trainer
from pixelclip.utils.console import FILE_ONLY, has_progress_bar

logger = logging.getLogger(__name__)

INTERRUPTED = 130  # the exit code of what Ctrl-C has ended


def run_command(args: argparse.Namespace) -> int:
    """Train or evaluate in as many processes as asked for; see :func:`train_or_evaluate`.

    Returns:
        The exit code: 1 after an error of the user's, which is printed in one line, 130 after an
        interruption.
    """
    try:
        launch(train_or_evaluate, args)
    except TrainingInterrupted:  # which has said how to continue
        return INTERRUPTED
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        logger.debug("The error came from here:", exc_info=True, extra=FILE_ONLY)
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def train_or_evaluate(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train, or evaluate ``MODEL.WEIGHTS``, in this process.

    Args:
        args: ``eval_only``, ``resume`` (from the last checkpoint in the output folder),
            ``resume_command`` (to be shown after an interruption), and what :func:`setup` takes.

    Returns:
        Metrics by data set; of a training only where it has ``TEST.EXPECTED_RESULTS``.
    """
    cfg = setup(args)
    return _evaluate(cfg, args.resume) if args.eval_only else _train(cfg, args)


def _train(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any] | None:
    logger.info(
        "Training %s on %s: %d iterations of %d images on %s. Output: %s",
        cfg.MODEL.CLIP.ARCH,
        ", ".join(cfg.DATASETS.TRAIN),
        cfg.SOLVER.MAX_ITER,
        cfg.SOLVER.IMS_PER_BATCH,
        _describe_devices(cfg),
        cfg.OUTPUT_DIR,
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    if has_progress_bar():
        trainer.register_hooks([ProgressBar("training")])
    try:
        results = trainer.train()
    except KeyboardInterrupt as interruption:
        logger.info(_describe_interruption(interruption, trainer, args.resume_command))
        raise
    logger.info("Trained; the weights are in %s.", trainer.checkpointer.get_checkpoint_file())
    return results


def _evaluate(cfg: CfgNode, resume: bool) -> dict[str, Any]:
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty: name the data sets to evaluate.")
    last = "the last checkpoint" if resume else "CLIP as it is, without MODEL.WEIGHTS,"
    logger.info(
        "Evaluating %s on %s, %d data sets. Output: %s",
        cfg.MODEL.WEIGHTS or last,
        _describe_devices(cfg),
        len(cfg.DATASETS.TEST),
        os.path.join(cfg.OUTPUT_DIR, "evaluation"),
    )
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    model = architecture(cfg, for_training=False).to(cfg.MODEL.DEVICE)
    PixelCLIPCheckpointer(model, cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    return Trainer.test(cfg, model)


def _describe_devices(cfg: CfgNode) -> str:
    number = comm.get_world_size()
    if cfg.MODEL.DEVICE.startswith("cuda"):
        return f"{number} GPU{'s' if number > 1 else ''}"
    reason = "" if torch.cuda.is_available() else " (no GPU was found)"
    return f"the CPU{reason}" + (f" in {number} processes" if number > 1 else "")


def _describe_interruption(
    interruption: KeyboardInterrupt, trainer: Trainer, resume_command: str
) -> str:
    text = str(interruption) or "Interrupted."
    if not trainer.checkpointer.has_checkpoint():
        return f"{text} No checkpoint was written."
    last = trainer.checkpointer.get_checkpoint_file()
    return f"{text} To continue from {last}:\n\n    {resume_command}\n"
