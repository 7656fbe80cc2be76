"""Detectron2's default trainer, with PixelCLIP's data, solver and checkpoints."""

import contextlib
import functools
import logging
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, TensorboardXWriter
from detectron2.utils.logger import log_first_n, setup_logger
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import ConcatDataset

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.checkpoint.saved_config import dump_config
from pixelclip.config import take_renamed_keys
from pixelclip.data.loader import ResumableLoader
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import ROOT_DATASETS, find_sa1b_root
from pixelclip.engine.hooks import (
    CountSkippedRecords,
    IterationLog,
    SeedEveryIteration,
    WarnOfCollapse,
)
from pixelclip.engine.interruption import StopOnSignal
from pixelclip.engine.non_finite import NonFiniteError, save_non_finite_step
from pixelclip.engine.progress_lines import ProgressLines
from pixelclip.engine.prompt_initialization import InitializePrompts
from pixelclip.engine.retrying_writes import (
    RetryingCheckpointer,
    RetryingWriter,
    log_unstored_result,
)
from pixelclip.engine.setup import check_batch_split, check_run_config
from pixelclip.engine.solver import build_lr_scheduler, build_optimizer
from pixelclip.engine.training_step import TrainingStep
from pixelclip.evaluation import Benchmark, MaskRegionsMapper, build_evaluator
from pixelclip.evaluation.benchmark import NoTestSetError, takes_given_masks
from pixelclip.evaluation.loader import build_evaluation_loader
from pixelclip.utils.distributed import check_same, check_same_config, run_on_all_ranks

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Train and evaluate PixelCLIP.

    A checkpoint holds the model with its teacher, optimizer, schedule, seed and place in the data,
    so that a resumed run continues exactly; with the same seed, two runs on one CPU agree.

    Args:
        cfg: a config with PixelCLIP's keys.

    Raises:
        ValueError, FileNotFoundError: a config that cannot run or a training set that is not there,
            before any training; in the other processes RuntimeError, which names the rank. A test
            set that is not there is a warning.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's own constructor wraps the model for GPUs only and, in Detectron2 0.5,
        # leaves the optimizer out of the checkpoints.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = take_renamed_keys(cfg)
        check_same_config(cfg)
        run_on_all_ranks(lambda: self._check(cfg))
        run_on_all_ranks(lambda: self._look_for_test_sets(cfg))
        self.cfg = cfg = _scale_to_processes(cfg)
        check_batch_split(cfg, comm.get_world_size())
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        model: Any = run_on_all_ranks(lambda: self.build_model(cfg))
        if model.training_masks.dino is not None:
            run_on_all_ranks(lambda: model.training_masks.dino.features)
        if model.mask_features.crops is not None:
            run_on_all_ranks(lambda: model.mask_features.crops.encoder)
        optimizer = self.build_optimizer(cfg, model)
        loader = run_on_all_ranks(lambda: self.build_train_loader(cfg, seed=self.seed))
        check_same("number of training records", loader.state_dict()["num_records"])
        self._trainer = TrainingStep(
            _wrap_distributed(model),
            loader,
            optimizer,
            precision=cfg.SOLVER.AMP.PRECISION if cfg.SOLVER.AMP.ENABLED else None,
            accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
            time_limit=cfg.SOLVER.STEP_TIME_LIMIT,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = PixelCLIPCheckpointer(
            self.model,
            cfg.OUTPUT_DIR,
            config=dump_config(cfg),
            trainer=weakref.proxy(self),
            data_loader=loader,
        )
        self.register_hooks(self.build_hooks())

    @staticmethod
    def _check(cfg: CfgNode) -> None:
        check_run_config(cfg)
        if set(ROOT_DATASETS) & set(cfg.DATASETS.TRAIN):
            find_sa1b_root()

    @classmethod
    def _look_for_test_sets(cls, cfg: CfgNode) -> None:
        with _continuing_without_test_sets():
            Benchmark.from_config(cfg).prepare(lambda name: cls.build_evaluator(cfg, name))

    def resume_or_load(self, resume: bool = True) -> None:
        """Load the last checkpoint, or ``MODEL.WEIGHTS``; see Detectron2's trainer.

        Raises:
            RuntimeError: the processes found different checkpoints.
        """
        has_checkpoint = any(comm.all_gather(self.checkpointer.has_checkpoint()))
        if not resume and has_checkpoint:
            run_on_all_ranks(self._set_earlier_training_aside)
        run_on_all_ranks(lambda: DefaultTrainer.resume_or_load(self, resume))
        if self.start_iter >= self.max_iter:
            logger.warning(
                "Nothing is left to train: the checkpoint is of iteration %d, and SOLVER.MAX_ITER "
                "is %d.",
                self.start_iter,
                self.max_iter,
            )
        starts = comm.all_gather(self.start_iter)
        if len(set(starts)) > 1:
            raise RuntimeError(
                f"The processes would start at iterations {starts}: OUTPUT_DIR "
                f"{self.cfg.OUTPUT_DIR!r} must be a folder that all machines share, or hold the "
                "same checkpoints on each."
            )

    def _set_earlier_training_aside(self) -> None:
        """A restart of this training must not resume from the last checkpoint of another one."""
        pointer = Path(self.cfg.OUTPUT_DIR, "last_checkpoint")
        aside = pointer.with_name("last_checkpoint.before")
        if comm.is_main_process():
            pointer.replace(aside)
            logger.warning(
                "OUTPUT_DIR %s holds checkpoints of another training, which this new one will "
                "replace. To continue that one, stop now, rename %s to %s and give --resume.",
                self.cfg.OUTPUT_DIR,
                aside.name,
                pointer.name,
            )

    def run_step(self) -> None:
        """Take a step.

        Raises:
            FloatingPointError: the loss or the gradient is infinite or NaN; it names the iteration,
                the images, and the file that the step is saved in.
        """
        try:
            super().run_step()
        except NonFiniteError as error:
            model = _unwrap_distributed(self._trainer.model)
            raise save_non_finite_step(error, model, self.cfg, self.iter + 1, self.seed) from error

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks (the schedule among them), optimizer and seed."""
        state = TrainerBase.state_dict(self)
        return {**state, "_trainer": self._trainer.state_dict(), "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])
        self.seed = state_dict["seed"]

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks and ours; ours write before an iteration's checkpoint is made."""
        hooks = super().build_hooks()
        ours = [
            InitializePrompts(self.cfg),
            SeedEveryIteration(),
            WarnOfCollapse(),
            CountSkippedRecords(self._trainer, self.cfg.DATALOADER.MAX_CORRUPT_FRACTION),
            IterationLog(self.cfg.OUTPUT_DIR, self.cfg.SOLVER.BASE_LR),
            StopOnSignal(self._trainer),
        ]
        # Behind the iteration timer and the schedule, which records the learning rate.
        return [*hooks[:2], *ours, *map(self._make_retrying, hooks[2:])]

    def _make_retrying(self, hook: HookBase | None) -> HookBase | None:
        """A full disk (``retrying_writes.py``) or missing test sets must not stop a training."""
        if isinstance(hook, PeriodicCheckpointer):
            max_to_keep = self.cfg.SOLVER.MAX_TO_KEEP or None
            return RetryingCheckpointer(self.checkpointer, hook.period, max_to_keep=max_to_keep)
        if isinstance(hook, EvalHook):
            hook._func = _continuing_without_test_sets()(log_unstored_result(hook._func))
        return hook

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's writers, with our lines of progress, which a full disk does not stop."""
        reopen = functools.partial(TensorboardXWriter, self.cfg.OUTPUT_DIR)
        files = [w for w in super().build_writers() if not isinstance(w, CommonMetricPrinter)]
        return [
            # Its thread ends with the first error. The others keep what they could not write.
            RetryingWriter(writer, reopen if isinstance(writer, TensorboardXWriter) else None)
            for writer in (ProgressLines(self.max_iter), *files)
        ]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`pixelclip.engine.solver.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """See :func:`pixelclip.engine.solver.build_lr_scheduler`."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, seed: int = 0) -> ResumableLoader:
        """Batches of ``DATASETS.TRAIN`` whose order and augmentations ``seed`` chooses."""
        load_masks = cfg.MODEL.PIXELCLIP.MASK_SOURCE == "dataset"
        required = "annotation_file_name" if load_masks else "image_span"
        return ResumableLoader(
            _load_records(cfg.DATASETS.TRAIN, required),
            MaskDatasetMapper(cfg, is_train=True).map_record,
            total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=seed,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            pin_memory=cfg.MODEL.DEVICE.startswith("cuda"),
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """See :func:`pixelclip.evaluation.build_evaluator`."""
        return build_evaluator(
            dataset_name, cfg.OUTPUT_DIR, cfg.TEST.EVALUATION, cfg.TEST.SAVE_PREDICTIONS
        )

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        """Batches of ``TEST.IMS_PER_BATCH`` images; with their masks where these are needed."""
        with_masks = takes_given_masks(cfg)
        mapper = MaskRegionsMapper(cfg, dataset_name) if with_masks else DatasetMapper(cfg, False)
        return build_evaluation_loader(
            dataset_name,
            mapper,
            cfg.TEST.IMS_PER_BATCH,
            cfg.DATALOADER.NUM_WORKERS,
            pin_memory=cfg.MODEL.DEVICE.startswith("cuda"),
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate on each of ``DATASETS.TEST`` with that data set's classes as vocabulary.

        The table goes to ``OUTPUT_DIR/evaluation``, see :class:`pixelclip.evaluation.Benchmark`.
        Finished results are taken from there where they belong to the same weights, settings and
        data; not with ``evaluators``, one for each data set.

        Returns:
            Metrics by data set name, without data sets that are not there; with a single one in
            ``DATASETS.TEST``, its metrics alone.

        Raises:
            FileNotFoundError: none of the data sets exists (a training continues without them).
        """
        names = cfg.DATASETS.TEST
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        given = None if evaluators is None else dict(zip(names, evaluators, strict=True))
        results: dict[str, Any] = Benchmark.from_config(cfg).run(
            _unwrap_distributed(model),
            lambda name: cls.build_test_loader(cfg, name),
            lambda name: given[name] if given else cls.build_evaluator(cfg, name),
            reuse=given is None,
        )
        return next(iter(results.values())) if len(names) == 1 else results


@contextlib.contextmanager
def _continuing_without_test_sets() -> Iterator[None]:
    """Warn once where no test set exists; also a decorator of what then returns None."""
    try:
        yield
    except NoTestSetError:
        message = (
            "Training continues without evaluation: no data set of DATASETS.TEST is here, and "
            "`pixelclip datasets check` says what is missing."
        )
        log_first_n(logging.WARNING, message, key="message")


# Keys that the records of training data sets need, and what it lacks where they have them not.
_CONTENT = {
    "annotation_file_name": "files of masks (MODEL.PIXELCLIP.MASK_SOURCE 'dino' needs none)",
    "image_span": "records of images to train on",
}


def _load_records(names: Sequence[str], required: str) -> Sequence[dict[str, Any]]:
    if not names:
        raise ValueError("DATASETS.TRAIN is empty; name a training set, such as 'sa1b_train'.")
    datasets = {name: DatasetCatalog.get(name) for name in names}
    for name, dataset in datasets.items():
        if len(dataset) and required not in dataset[0]:
            raise ValueError(
                f"The data set {name!r} in DATASETS.TRAIN has no {_CONTENT[required]}; take "
                "'sa1b_train' or another one whose records MaskDatasetMapper reads."
            )
    # It has a sequence's length and items, and unlike a list it makes no record before its turn.
    records: Any = ConcatDataset(list(datasets.values()))
    return records


def _scale_to_processes(cfg: CfgNode) -> CfgNode:
    """Detectron2's scaling by ``SOLVER.REFERENCE_WORLD_SIZE``, of the last learning rate too."""
    scaled = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
    if scaled.SOLVER.BASE_LR != cfg.SOLVER.BASE_LR:
        scaled.defrost()
        scaled.SOLVER.BASE_LR_END *= scaled.SOLVER.BASE_LR / cfg.SOLVER.BASE_LR
        scaled.freeze()
    return scaled


def _unwrap_distributed(model: nn.Module) -> Any:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _wrap_distributed(model: nn.Module) -> nn.Module:
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    device_ids = [torch.cuda.current_device()] if on_gpu else None
    return DistributedDataParallel(
        model, device_ids=device_ids, broadcast_buffers=False, gradient_as_bucket_view=True
    )
