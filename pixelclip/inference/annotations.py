"""Write the labeled images of a command as one file that annotation tools import.

It is made from the results of the single images, and can be made again at any time: after an
interruption, or when several processes have labeled the images.
"""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pixelclip.data.images import is_address
from pixelclip.inference.annotation_formats import FORMATS, LabeledImage, find_polygon
from pixelclip.inference.regions import DEFAULT_MIN_SHARE, Region

if TYPE_CHECKING:
    from pixelclip.inference.files import PredictionInput


@dataclass(frozen=True)
class AnnotationSettings:
    """What is written.

    Attributes:
        format: "coco", "cvat", "label-studio" or "masks".
        polygons: write regions without holes as polygons, accurate to a pixel, instead of masks.
        min_share: of the image's pixels, in 0..1, that a region must have.

    Raises:
        ValueError: one of these cannot be used.
    """

    format: str
    polygons: bool = False
    min_share: float = DEFAULT_MIN_SHARE

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            expected = ", ".join(FORMATS)
            raise ValueError(f"The format is {self.format!r}; expected one of {expected}.")
        if self.polygons and not self.has_regions:
            raise ValueError(f"The format {self.format!r} has no polygons; choose another one.")
        if not 0 <= self.min_share <= 1:
            raise ValueError(
                f"The smallest region is {self.min_share}; expected a share of the image, in 0..1."
            )

    @property
    def has_regions(self) -> bool:
        """Whether it holds regions; masks are label maps."""
        return self.format != "masks"

    def check_names(self, names: Sequence[str]) -> None:
        """Raise a ValueError if the format cannot hold these class names."""
        if unusable := [name for name in names if _escape(name) != name]:
            raise ValueError(f"Annotations hold no control characters: {unusable[0]!r}.")
        if self.has_regions:
            return
        if len(names) > 254:  # and the background
            raise ValueError(f"Masks have 8 bits, so at most 254 words; got {len(names)}.")
        if unusable := [name for name in names if ":" in name or name.startswith("#")]:
            raise ValueError(f"In the table of masks, no word may have ':' or '#': {unusable[0]!r}")


def write_annotations(
    settings: AnnotationSettings,
    output: Path,
    inputs: Sequence["PredictionInput"],
    read_result: Callable[["PredictionInput"], dict[str, Any] | None],
) -> list[Path]:
    """Write the finished images among the inputs; return the files.

    Args:
        output: folder of the results, and of what is written.
        inputs: all of them, in the order of the file; videos are left out.
        read_result: reads an input's JSON; None where there is none that fits.

    Returns:
        The paths of the files; none where no image is finished.

    Raises:
        OSError: a file cannot be read or written.
    """
    progress = tqdm(inputs, f"writing {settings.format}", unit="file")
    images = (
        (one, file_name, result)
        for one, file_name in zip(progress, _name_images(inputs), strict=True)
        if not one.is_video and (result := read_result(one)) and not result["problem"]
    )
    first = next(images, None)
    if first is None:
        return []
    labeled = (_collect(*image, settings, output) for image in itertools.chain([first], images))
    return FORMATS[settings.format](output, first[-1]["names"], labeled)


def _collect(
    one: "PredictionInput",
    file_name: str,
    result: dict[str, Any],
    settings: AnnotationSettings,
    output: Path,
) -> LabeledImage:
    regions = [Region(**region) for region in result.get("regions", ())]
    shapes = [
        (region, find_polygon(region) if settings.polygons else None)
        for region in regions
        if region.share >= settings.min_share
    ]
    label_map, model = output / f"{one.name}_labels.png", f"pixelclip-{result['made_with'][:8]}"
    size = result["width"], result["height"]
    name = _escape(str(one.name))
    return LabeledImage(one.path, file_name, name, label_map, *size, model, shapes)


def _name_images(inputs: Sequence["PredictionInput"]) -> list[str]:
    """Paths below the folder that was given; where two of these are the same, the whole paths."""
    places = [
        str(one.path) if is_address(one.path) else str(one.name.with_name(Path(one.path).name))
        for one in inputs
    ]
    counts = Counter(places)
    return [
        _escape(str(one.path) if counts[place] > 1 else place)
        for one, place in zip(inputs, places, strict=True)
    ]


def _escape(name: str) -> str:
    """The name with escapes for what XML cannot hold: control characters, and bytes not text."""
    return "".join(c.encode("unicode_escape").decode() if _is_control(c) else c for c in name)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or character in "\ufffe\uffff"
