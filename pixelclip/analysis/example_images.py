"""Pictures of a data set or of one's own, small enough to stand beside each other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import read_image
from PIL import Image

from pixelclip.meta_arch import PixelCLIP
from pixelclip.utils.visualization import Picture

# More pixels would not be seen in a row of pictures.
_LONGEST_SIDE = 480


@dataclass(frozen=True)
class ExamplePicture:
    """A picture as it is shown, and as the model takes it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        inputs: of the model, whose output then has (H, W) pixels.
    """

    pixels: Picture
    inputs: dict[str, Any]

    def segment(self, model: PixelCLIP) -> np.ndarray:
        """Label map (H, W) of the model's present classes, int64."""
        return model.segment_labels([self.inputs])[0].cpu().numpy().astype(np.int64)


def load_example_picture(cfg: CfgNode, file_name: str) -> ExamplePicture:
    """Read an image file; it is shown with at most 480 pixels a side.

    Args:
        cfg: says how test images are made.
        file_name: path of an image.

    Raises:
        ValueError: the file cannot be read as an image; the text names it.
    """
    try:
        inputs = DatasetMapper(cfg, is_train=False)({"file_name": file_name})
        whole = Image.fromarray(read_image(file_name, "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file_name} cannot be read as an image: {error}") from error
    whole.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    inputs.update(height=whole.height, width=whole.width)
    return ExamplePicture(np.array(whole), inputs)
