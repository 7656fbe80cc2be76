"""What every mask generator is: settings that are checked at once, and the masks of an image."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pixelclip.data.masks import torch_nearest
from pixelclip.data.sa1b_files import FoundMask


@dataclass
class BaseGenerator(ABC):
    """Finds masks without names; the same image always gets the same ones.

    To add a generator, write a subclass with :meth:`find` and, if it has a network, :meth:`load`,
    and name it in ``pixelclip/applications.py``.

    Args:
        model: "" for the default. For SAM, SAM-HQ and SAM 2, a name on Hugging Face's hub or a
            folder; for MobileSAM, what ``fetch_weights`` takes; for DINO and DINOv2, a name of
            timm's.
        weights: for MobileSAM, DINO and DINOv2, a file with the model's weights; "" for those that
            are downloaded once.
        num_clusters: into how many regions DINO and DINOv2 divide an image.

    Attributes:
        working_side: pixels of the longer side of the copy in which masks are found.
        default_model: "" for a generator without a network.

    Raises:
        ValueError: no cluster, a model or weights for a generator that takes none, or unknown ones.
        ModuleNotFoundError: the generator's package is not installed.
    """

    model: str = ""
    weights: str = ""
    num_clusters: int = 16
    name: ClassVar[str]
    working_side: ClassVar[int]
    default_model: ClassVar[str] = ""
    takes_weights: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_clusters < 1:
            raise ValueError(f"{self.num_clusters} clusters were asked for; expected at least 1.")
        if self.model and not self.default_model:
            raise ValueError(f"{self.name} need no model; got {self.model!r}. Leave it out.")
        if self.weights and not self.takes_weights:
            raise ValueError(f"{self.name} takes no weights file; got {self.weights!r}.")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides about the masks: the name and the arguments."""
        return {"name": self.name, **asdict(self)}

    def generate(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """Find masks in an image (H, W, 3) RGB; they may overlap and need not cover everything.

        They are (H, W) bool with at least one pixel each, and come one by one, as hundreds of an
        image's full size would fill the memory.
        """
        for found in self.find(shrink_image(image, self.working_side)):
            mask = enlarge_mask(found.mask, image.shape[:2])
            if mask.any():
                yield found._replace(mask=mask)

    def load(self, device: torch.device) -> None:  # noqa: B027 (a generator may need nothing)
        """Load the network onto a device; a second call does nothing.

        Raises:
            ValueError, RuntimeError: the model cannot be loaded.
        """

    @abstractmethod
    def find(self, image: NDArray[np.uint8]) -> Iterator[FoundMask]:
        """Masks (h, w) bool of the shrunk image (h, w, 3)."""


def shrink_image(image: NDArray[np.uint8], longest_side: int) -> NDArray[np.uint8]:
    """The image (H, W, 3) reduced to the given longer side in pixels; never enlarged."""
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def enlarge_mask(mask: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask (h, w) at another (height, width), by nearest neighbor.

    In memory, columns come one after the other, which is the order of run-length codes.
    """
    rows, columns = (torch_nearest(*sides) for sides in zip(mask.shape, size, strict=True))
    # Rows first: then whole columns are copied, which is several times faster.
    return mask.T[:, rows][columns].T
