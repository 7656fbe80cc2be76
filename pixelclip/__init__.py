"""PixelCLIP: open-vocabulary semantic segmentation learned from unlabeled masks, on Detectron2.

Importing it registers the meta-architecture, the backbone, the data sets and the applications.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("detectron2") is None:
    raise ModuleNotFoundError(
        "PixelCLIP needs Detectron2, which is not installed here. Run `pixelclip "
        "install-detectron2` (pure Python, no compiler), or build it as its documentation says.",
        name="detectron2",
    )

from pixelclip.applications import register_applications
from pixelclip.config import add_pixelclip_config
from pixelclip.data.datasets import register_all
from pixelclip.meta_arch import PixelCLIP

if TYPE_CHECKING:
    from pixelclip.inference.predictor import Predictor
    from pixelclip.inference.result import Prediction

__version__ = "0.1.0"
__all__ = ["PixelCLIP", "Prediction", "Predictor", "add_pixelclip_config"]

register_all()
register_applications()


def __getattr__(name: str) -> Any:
    """Import the Predictor when it is asked for, with the evaluators and plotting behind it."""
    if name == "Predictor":
        from pixelclip.inference.predictor import Predictor

        return Predictor
    if name == "Prediction":
        from pixelclip.inference.result import Prediction

        return Prediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
