"""PixelCLIP: open-vocabulary semantic segmentation learnt from unlabelled masks, on Detectron2.

Importing it registers the meta-architecture, the backbone and the data sets with Detectron2.
"""

from pixelclip.config import add_pixelclip_config
from pixelclip.data.datasets.builtin import register_all
from pixelclip.meta_arch import PixelCLIP

__all__ = ["PixelCLIP", "add_pixelclip_config"]

register_all()
