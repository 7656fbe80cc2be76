"""The demo: evaluate the tiny CLIP, train PixelCLIP with masks only, evaluate it again.

Everything goes through the ordinary model, mapper, trainer and evaluator. What is finished is on
disk, so that a demo that was broken off goes on.
"""

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from pixelclip.engine import Trainer
from pixelclip.engine.hooks import ProgressBar
from pixelclip.engine.setup import load_config
from pixelclip.evaluation.benchmark import dataset_vocabulary
from pixelclip.evaluation.result_cache import hash_weights
from pixelclip.meta_arch import PixelCLIP
from pixelclip.toy.dataset import TOY_SCENES_TEST
from pixelclip.toy.demo_folder import DemoFolder, open_demo_folder
from pixelclip.toy.demo_report import DENSE_PATHS_BEFORE, Evaluation, write_demo_report
from pixelclip.toy.scene_files import write_scenes

_LOGGERS = ("detectron2", "fvcore", "pixelclip", "py.warnings")


def run_demo(
    config_file: str, output: Path, overrides: Sequence[str] = (), fresh: bool = False
) -> tuple[Path, bool]:
    """Run the demo, or what is left of it.

    Scenes that are missing are drawn below ``$DETECTRON2_DATASETS``, or, where that is not set,
    into the output folder.

    Args:
        config_file: of the training.
        output: folder of ``report.html``, ``report.md``, ``log.txt`` and all else.
        overrides: keys and values for the config.
        fresh: remove what an earlier demo has left in the output folder.

    Returns:
        The path of ``report.html``, and whether it was there before.

    Raises:
        OSError: the output folder cannot be written, or its disk is nearly full.
        ValueError: the config cannot run, or the output folder holds something else than a demo of
            these settings.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_default_datasets_root(output / "datasets"))
        cfg = load_config(config_file, overrides)
        cfg.DATASETS.TEST = (TOY_SCENES_TEST.name,)
        with _only_errors_on_terminal():
            settings = _hash_settings(cfg)
        folder = stack.enter_context(open_demo_folder(output, settings, fresh))
        was_finished = folder.is_finished
        if not was_finished:
            stack.enter_context(_log_to_file(output / "log.txt"))
            _run_stages(cfg, folder)
            folder.finish()
    return output / "report.html", was_finished


def _run_stages(cfg: CfgNode, folder: DemoFolder) -> None:
    with _stage(folder, "drawing the scenes"):
        report = write_scenes(Path(os.environ["DETECTRON2_DATASETS"]), os.cpu_count() or 1)
        logging.getLogger(__name__).info("%d scenes drawn", report.written)
    with _stage(folder, "evaluations before"):
        evaluations = [_evaluate_before(cfg, folder.path, path) for path in DENSE_PATHS_BEFORE]
    with _stage(folder, "training"):
        model = _train(cfg, folder.path)
    with _stage(folder, "evaluation after"):
        evaluations.append(_evaluate(cfg, folder.path, model, "after"))
    with _stage(folder, "report"):
        write_demo_report(cfg, folder, evaluations)


@contextlib.contextmanager
def _stage(folder: DemoFolder, name: str) -> Iterator[None]:
    print(f"{name} ...", file=sys.stderr, flush=True)
    with folder.timed(name):
        yield


def _evaluate_before(cfg: CfgNode, output: Path, dense_path: str) -> Evaluation:
    cfg = cfg.clone()
    cfg.MODEL.CLIP.DENSE_PATH = dense_path
    return _evaluate(cfg, output, _build_model(cfg), dense_path)


def _evaluate(cfg: CfgNode, output: Path, model: PixelCLIP, name: str) -> Evaluation:
    """Evaluate on the test scenes, or take the stored result."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(output / "evaluation" / name)
    metrics: dict[str, Any] = Trainer.test(cfg, model.eval())["sem_seg"]
    # A stored result leaves the model as it was, and the report's pictures need the classes.
    model.set_vocabulary(**dataset_vocabulary(TOY_SCENES_TEST.name))
    return Evaluation(name, metrics, model)


def _build_model(cfg: CfgNode) -> PixelCLIP:
    # The class prompts begin at random; the same ones make a stored result usable again.
    seed_all_rng(cfg.SEED)
    return Trainer.build_model(cfg)


def _train(cfg: CfgNode, output: Path) -> PixelCLIP:
    """Train, or go on from the last checkpoint, or load the end of a finished training."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(output / "training")
    cfg.DATASETS.TEST = ()  # the evaluation is a stage of its own
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        trainer.register_hooks([ProgressBar("training")])
        trainer.train()
    return trainer.model


def _hash_settings(cfg: CfgNode) -> str:
    """Hash of the config and of the weights that the demo begins with."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = ""
    return hashlib.sha256(f"{cfg.dump()}{hash_weights(_build_model(cfg))}".encode()).hexdigest()


@contextlib.contextmanager
def _default_datasets_root(folder: Path) -> Iterator[None]:
    """Let the data sets lie in a folder, unless ``$DETECTRON2_DATASETS`` says where they lie."""
    before = os.environ.get("DETECTRON2_DATASETS")
    if not before:
        os.environ["DETECTRON2_DATASETS"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DETECTRON2_DATASETS"]
        else:
            os.environ["DETECTRON2_DATASETS"] = before


@contextlib.contextmanager
def _log_to_file(path: Path) -> Iterator[None]:
    """Send log lines and Python's warnings to the end of a file, and nothing to the terminal."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s"))
    with _replace_handlers(handler, logging.INFO):
        try:
            yield
        finally:
            handler.close()


@contextlib.contextmanager
def _only_errors_on_terminal() -> Iterator[None]:
    with _replace_handlers(logging.StreamHandler(), logging.ERROR):
        yield


@contextlib.contextmanager
def _replace_handlers(handler: logging.Handler, level: int) -> Iterator[None]:
    """Let the libraries' loggers and Python's warnings go to one handler only."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    logging.captureWarnings(True)
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, (handlers, old_level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(old_level)
