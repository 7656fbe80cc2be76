"""The demo: evaluate the tiny CLIP, train PixelCLIP with masks only, as published and beyond.

Everything goes through the ordinary model, mapper, trainer and evaluator. What is finished is on
disk, so that an interrupted demo resumes.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.data.datasets.sem_seg_benchmark import datasets_root
from pixelclip.engine import Trainer
from pixelclip.engine.hooks import ProgressBar
from pixelclip.engine.prompt_initialization import InitializePrompts
from pixelclip.engine.setup import load_config
from pixelclip.engine.solver import build_lr_scheduler, build_optimizer
from pixelclip.evaluation.benchmark import dataset_vocabulary
from pixelclip.evaluation.result_cache import hash_weights
from pixelclip.meta_arch import PixelCLIP
from pixelclip.toy.datasets import write_scenes
from pixelclip.toy.report import (
    AFTER,
    BASELINES,
    PLUS,
    PLUS_MASKS,
    TEST_SET,
    Evaluation,
    write_demo_report,
)
from pixelclip.utils.atomic_write import write_text

_CONFIG_FILE, _PLUS_CONFIG_FILE = "configs/demo/toy.yaml", "configs/demo/toy_plus.yaml"
_TRAINING, _PLUS_TRAINING = "training", "training_plus"
_STATE, _LAST_FILE = "demo.json", "report.html"
# What --fresh removes, the state last: while it exists, the rest belongs to a demo.
_MADE_BY_DEMO = (
    *(_LAST_FILE, "report.md", "evaluation", _TRAINING, _PLUS_TRAINING, "figures", "log.txt"),
    _STATE,
)
_LOGGERS = ("detectron2", "fvcore", "pixelclip", "py.warnings")


def run_demo(
    output: Path, overrides: Sequence[str] = (), fresh: bool = False
) -> tuple[Path, bool]:
    """Run the demo, or what is left of it.

    Missing scenes are drawn below ``$DETECTRON2_DATASETS``.

    Args:
        output: folder of ``report.html``, ``report.md``, ``log.txt`` and everything else.
        overrides: config keys and values, alternating, for both trainings.
        fresh: remove what an earlier demo has left in the output folder.

    Returns:
        The path of ``report.html``, and whether it existed before.

    Raises:
        OSError: the output folder cannot be written.
        ValueError: the config cannot run, or the output folder holds something other than a demo
            of these settings.
    """
    cfg, plus = (load_config(file, overrides) for file in (_CONFIG_FILE, _PLUS_CONFIG_FILE))
    cfg.DATASETS.TEST = plus.DATASETS.TEST = (TEST_SET,)
    with _redirect_logs(logging.StreamHandler(), logging.ERROR):
        settings = _hash_settings(cfg, plus)
    with open_demo_folder(output, settings, fresh) as folder:
        was_finished = folder.is_finished
        if not was_finished:
            handler = logging.FileHandler(output / "log.txt")
            with contextlib.closing(handler), _redirect_logs(handler, logging.INFO):
                _run_stages(cfg, plus, folder)
    return output / _LAST_FILE, was_finished


class DemoFolder:
    """The state of a demo on disk; use :func:`open_demo_folder`, which locks it.

    Attributes:
        path: of the folder.
        seconds: how long each stage has taken so far, interrupted attempts included.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self.path, self._settings = path, settings
        self.seconds: dict[str, float] = {}
        if (path / _STATE).exists():
            state = json.loads((path / _STATE).read_bytes())
            if state["settings"] != settings:
                raise ValueError(
                    f"{path} holds a demo of other settings or other weights; start again with "
                    "--fresh, or choose another folder by --output"
                )
            self.seconds = state["seconds"]
        elif foreign := [name for name in _MADE_BY_DEMO if (path / name).exists()]:
            raise ValueError(
                f"{path} holds {', '.join(foreign)}, which no demo has made; choose another folder "
                "by --output, or move them away"
            )
        self._save()

    @property
    def is_finished(self) -> bool:
        """Whether everything is done."""
        return (self.path / _LAST_FILE).exists()

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage's, also where it is interrupted."""
        print(f"{stage} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
            self._save()

    def _save(self) -> None:
        state = {"settings": self._settings, "seconds": self.seconds}
        write_text(self.path / _STATE, json.dumps(state, indent=2))


@contextlib.contextmanager
def open_demo_folder(path: Path, settings: str, fresh: bool = False) -> Iterator[DemoFolder]:
    """Open the folder of a new demo, or of one to be resumed, for this process alone.

    Args:
        path: the folder, which need not exist.
        settings: a hash of everything that the demo's results depend on.
        fresh: remove what a demo has left there and start again.

    Raises:
        OSError: the folder cannot be written.
        ValueError: it holds a demo of other settings, files that no demo has made, or a demo that
            is running now.
    """
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "w") as lock:
        try:  # the system releases the lock of a process that was killed
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another demo is running in {path}; wait for it, or choose another folder by "
                "--output"
            ) from None
        if fresh and (path / _STATE).exists():
            for name in _MADE_BY_DEMO:
                shutil.rmtree(path / name, ignore_errors=True)
                (path / name).unlink(missing_ok=True)
        yield DemoFolder(path, settings)


def _run_stages(cfg: CfgNode, plus: CfgNode, folder: DemoFolder) -> None:
    with folder.timed("drawing the scenes"):
        written, _ = write_scenes(datasets_root(), os.cpu_count() or 1)
        logging.getLogger(__name__).info("%d scenes drawn", written)
    with folder.timed("evaluations before"):
        paths = [_with(cfg, "MODEL.CLIP.DENSE_PATH", path) for path in BASELINES]
        evaluations = [_evaluate(c, folder.path, c.MODEL.CLIP.DENSE_PATH) for c in paths]
    with folder.timed("training"):
        model = _train(cfg, folder.path / _TRAINING)
    with folder.timed("evaluation after"):
        evaluations.append(_evaluate(cfg, folder.path, AFTER, model))
    with folder.timed("training beyond the paper"):
        model = _train(plus, folder.path / _PLUS_TRAINING)
    with folder.timed("evaluations beyond the paper"):
        evaluations.append(_evaluate(plus, folder.path, PLUS, model))
        weights = str(folder.path / _PLUS_TRAINING / "model_final.pth")
        masks = _with(plus, "MODEL.PIXELCLIP.TEST_MASKS", "superpixels", "MODEL.WEIGHTS", weights)
        evaluations.append(_evaluate(masks, folder.path, PLUS_MASKS))
    with folder.timed("report"):
        write_demo_report(cfg, folder.path, folder.seconds, evaluations)


def _with(cfg: CfgNode, *overrides: str) -> CfgNode:
    """A copy with other values."""
    cfg = cfg.clone()
    cfg.merge_from_list(overrides)
    return cfg


def _evaluate(
    cfg: CfgNode, output: Path, method: str, model: PixelCLIP | None = None
) -> Evaluation:
    """Evaluate on the test scenes, or take the stored result; by default the config's weights."""
    cfg = _with(cfg, "OUTPUT_DIR", str(output / "evaluation" / method))
    model = _build_model(cfg) if model is None else model
    metrics = Trainer.test(cfg, model.eval())["sem_seg"]
    # With a stored result the model has no vocabulary yet, which the report's figure needs.
    model.set_vocabulary(**dataset_vocabulary(TEST_SET))
    return Evaluation(method, metrics, model)


def _build_model(cfg: CfgNode) -> PixelCLIP:
    # The class prompts start from random values; the same ones make a stored result usable again.
    seed_all_rng(cfg.SEED)
    model = Trainer.build_model(cfg)
    PixelCLIPCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def _train(cfg: CfgNode, output: Path) -> PixelCLIP:
    """Train, or resume from the last checkpoint, or load the end of a finished training."""
    cfg = _with(cfg, "OUTPUT_DIR", str(output))
    cfg.DATASETS.TEST = ()  # the evaluation is a stage of its own
    output.mkdir(exist_ok=True)
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter < trainer.max_iter:
        trainer.register_hooks([ProgressBar("training")])
        trainer.train()
    return trainer.model


def _hash_settings(cfg: CfgNode, plus: CfgNode) -> str:
    """Hash of the configs and of the weights that the demo starts from.

    What either training would refuse is refused here, before there is anything to lose.
    """
    if not cfg.MODEL.CLIP.PRETRAINED:
        raise ValueError("MODEL.CLIP.PRETRAINED is empty; the demo needs the weights 'captions'.")
    texts = []
    for one in (cfg, plus):
        model = _build_model(one)
        build_lr_scheduler(one, build_optimizer(one, model))
        InitializePrompts(one)
        texts.append(f"{_with(one, 'OUTPUT_DIR', '').dump()}{hash_weights(model)}")
    return hashlib.sha256("".join(texts).encode()).hexdigest()


@contextlib.contextmanager
def _redirect_logs(handler: logging.Handler, level: int) -> Iterator[None]:
    """Send the libraries' log lines and Python's warnings to one handler only."""
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s"))
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
