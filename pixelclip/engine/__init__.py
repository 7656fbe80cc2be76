"""Training and evaluation on top of Detectron2's engine."""

from pixelclip.engine.trainer import Trainer

__all__ = ["Trainer"]
