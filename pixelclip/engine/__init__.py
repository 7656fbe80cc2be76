"""Training and evaluation on top of Detectron2's engine."""

from pixelclip.engine.minimal_trainer import MinimalTrainer
from pixelclip.engine.trainer import Trainer

__all__ = ["MinimalTrainer", "Trainer"]
