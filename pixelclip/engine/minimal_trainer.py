"""Detectron2's ``DefaultTrainer`` with no more changes than PixelCLIP needs."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.checkpoint.saved_config import dump_config
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.engine.solver import build_lr_scheduler, build_optimizer
from pixelclip.engine.trainer import Trainer


class MinimalTrainer(DefaultTrainer):
    """Detectron2's ``DefaultTrainer`` for PixelCLIP, as a pattern for your own trainer.

    It has none of :class:`Trainer`'s guarantees (exact resumption, non-finite steps, full disks,
    accumulation), and Detectron2's limits: several processes and ``SOLVER.AMP`` need GPUs.

    Any other trainer drives the model too, if it provides:

    - batches as :class:`MaskDatasetMapper` makes them (lists of dicts with ``image``,
      ``image_strong`` and ``masks``) of records as of the data set "sa1b_train";
    - the model in training mode, called once per step, and the gradient of the sum of the losses
      in the dict that it returns. Each call also moves the teacher;
    - the optimizer of :func:`build_optimizer`, which has a learning rate for each part of the model
      and clips the whole gradient (Detectron2's clips parameter by parameter, or raises for
      ``CLIP_TYPE`` "full_model");
    - :func:`build_lr_scheduler`, stepped after each step (the cosine of Detectron2 0.5 ends at 0
      instead of ``SOLVER.BASE_LR_END``);
    - :class:`PixelCLIPCheckpointer` for ``MODEL.WEIGHTS`` (with them, CLIP's own weights are not
      loaded; Detectron2's checkpointer knows neither the published names of parameters nor the
      model zoo, and trains from random weights with no more than a warning);
    - for several processes, ``DistributedDataParallel`` with ``broadcast_buffers=False`` and
      Detectron2's process groups;
    - for an evaluation, ``model.set_vocabulary`` before each data set, or :meth:`Trainer.test`.

    Args:
        cfg: a config with PixelCLIP's keys.
    """

    checkpointer: Any  # before build_hooks, Detectron2's

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks, with PixelCLIP's checkpointer."""
        parts: Any = self.checkpointer.checkpointables
        self.checkpointer = PixelCLIPCheckpointer(
            self._trainer.model, self.cfg.OUTPUT_DIR, config=dump_config(self.cfg), **parts
        )
        return super().build_hooks()

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """Detectron2's loader of ``DATASETS.TRAIN``, with PixelCLIP's mapper."""
        return build_detection_train_loader(cfg, mapper=MaskDatasetMapper(cfg))

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
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """See :meth:`Trainer.test`; with an empty ``DATASETS.TEST``, nothing is evaluated."""
        return Trainer.test(cfg, model, evaluators)
