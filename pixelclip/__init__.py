"""PixelCLIP: open-vocabulary semantic segmentation learnt from unlabelled masks, on Detectron2.

Importing it registers the meta-architecture, the backbone and the data sets with Detectron2.
"""

from typing import TYPE_CHECKING, Any

from pixelclip.config import add_pixelclip_config
from pixelclip.data.datasets.builtin import register_all
from pixelclip.meta_arch import PixelCLIP

if TYPE_CHECKING:
    from pixelclip.inference.predictor import Predictor
    from pixelclip.inference.result import Prediction

__all__ = ["PixelCLIP", "Prediction", "Predictor", "add_pixelclip_config"]

register_all()


def __getattr__(name: str) -> Any:
    """Import the Predictor when it is asked for, with the evaluators and plotting behind it."""
    if name == "Predictor":
        from pixelclip.inference.predictor import Predictor

        return Predictor
    if name == "Prediction":
        from pixelclip.inference.result import Prediction

        return Prediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
