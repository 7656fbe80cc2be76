"""Detectron2's default trainer, with PixelCLIP's data, solver and checkpoints."""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import ConcatDataset

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.data.mask_dataset_mapper import MaskDatasetMapper
from pixelclip.data.resumable_loader import ResumableLoader
from pixelclip.engine.hooks import IterationLog, MonitorClusters, SeedEveryIteration
from pixelclip.engine.setup import check_config
from pixelclip.engine.solver import build_lr_scheduler, build_optimizer
from pixelclip.evaluation import build_evaluator


class Trainer(DefaultTrainer):
    """Train and evaluate PixelCLIP.

    A checkpoint holds the model with its teacher, optimizer, schedule, seed and place in the data,
    so that a resumed run continues exactly; with the same seed, two runs on one machine agree.

    Args:
        cfg: a config with PixelCLIP's keys.

    Raises:
        ValueError, FileNotFoundError: a config that cannot run or a data set that is not there,
            before any training.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's own constructor wraps the model for GPUs only and, in Detectron2 0.5,
        # leaves the optimizer out of the checkpoints.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        check_config(cfg)
        _check_test_sets(cfg)
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg, seed=self.seed)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(_wrap_distributed(model), loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = PixelCLIPCheckpointer(
            self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self), data_loader=loader
        )
        self.register_hooks(self.build_hooks())

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
        ours = [SeedEveryIteration(), MonitorClusters(), IterationLog(self.cfg.OUTPUT_DIR)]
        # Behind the iteration timer and the schedule, which records the learning rate.
        return [*hooks[:2], *ours, *hooks[2:]]

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
        return ResumableLoader(
            _load_records(cfg.DATASETS.TRAIN),
            MaskDatasetMapper(cfg, is_train=True).map_record,
            total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=seed,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """See :func:`pixelclip.evaluation.build_evaluator`."""
        return build_evaluator(dataset_name, cfg.OUTPUT_DIR)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate on each of ``DATASETS.TEST`` with that data set's classes as vocabulary.

        Returns:
            Metrics by data set name; with a single data set, its metrics alone.
        """
        segmenter: Any = model.module if isinstance(model, DistributedDataParallel) else model
        results: dict[str, Any] = OrderedDict()
        for index, name in enumerate(cfg.DATASETS.TEST):
            segmenter.set_vocabulary(MetadataCatalog.get(name).stuff_classes)
            one_set = cfg.clone()
            one_set.defrost()
            one_set.DATASETS.TEST = (name,)
            one_evaluator = None if evaluators is None else [evaluators[index]]
            results[name] = super().test(one_set, model, one_evaluator)
        return next(iter(results.values())) if len(results) == 1 else results


def _load_records(names: Sequence[str]) -> Sequence[dict[str, Any]]:
    # The main process goes first: it may build an index that the others then find on disk.
    if not comm.is_main_process():
        comm.synchronize()
    records: Any = ConcatDataset([DatasetCatalog.get(name) for name in names])
    if comm.is_main_process():
        comm.synchronize()
    # It has a sequence's length and items, and unlike a list it makes no record before its turn.
    return records


def _check_test_sets(cfg: CfgNode) -> None:
    for name in cfg.DATASETS.TEST:
        DatasetCatalog.get(name)  # raises, naming the folder and the remedy


def _wrap_distributed(model: nn.Module) -> nn.Module:
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    device_ids = [torch.cuda.current_device()] if on_gpu else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)
