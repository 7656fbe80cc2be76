"""The files that annotation tools import: COCO, CVAT, Label Studio, and masks.

CVAT's is "CVAT for images 1.1". Masks are label maps in Pascal VOC's layout, which CVAT calls
"Segmentation mask 1.1". Scores are regions' mean cosines.
"""

import itertools
import json
import os
import urllib.parse
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pixelclip.data.images import is_address
from pixelclip.inference.regions import Region
from pixelclip.utils.atomic_write import atomic_writer, write_text
from pixelclip.utils.class_colors import class_colors

Polygon = NDArray[np.float64]

# How far a polygon may be from its region's border, in pixels.
_POLYGON_TOLERANCE = 1.0
# In Label Studio's run-length code, the bits of a length; a pixel has four values, RGBA.
_LENGTH_BITS, _CHANNELS = (3, 4, 8, 16), 4


class LabeledImage(NamedTuple):
    """A labeled image.

    Attributes:
        path: of the image, or its address.
        file_name: by which tools know it.
        name: of its results, which no other image has.
        label_map: the PNG with its classes.
        width, height: in pixels.
        model: what labeled it.
        shapes: its regions, the largest first, each with a polygon (P, 2) or None.
    """

    path: Path | str
    file_name: str
    name: str
    label_map: Path
    width: int
    height: int
    model: str
    shapes: list[tuple[Region, Polygon | None]]


def find_polygon(region: Region) -> Polygon | None:
    """Points (P, 2) of a region's border, x and y from the image's corner; None if it has holes."""
    from skimage import measure  # takes long to import

    left, top, width, height = _box(region)
    inside = np.pad(region.mask[top : top + height, left : left + width], 1)
    contours = measure.find_contours(inside, 0.5)
    points = measure.approximate_polygon(contours[0], _POLYGON_TOLERANCE)[:-1, ::-1]
    if len(contours) > 1 or len(points) < 3:
        return None
    # The center of the first pixel is at 1, because of the padding, and half a pixel inside.
    return points + (left - 0.5, top - 0.5)


def _box(region: Region) -> list[int]:
    """Left, top, width and height in pixels."""
    return coco_mask.toBbox(region.rle).astype(int).tolist()


def _write_coco(output: Path, names: Sequence[str], images: Iterable[LabeledImage]) -> list[Path]:
    """Write instances; a segmentation is one polygon, or a compressed run-length code."""
    path = output / "coco.json"
    entries: list[dict[str, Any]] = []  # of the images, which follow the annotations

    def annotations() -> Iterator[dict[str, Any]]:
        numbers = itertools.count(1)
        for image in images:
            size = {"width": image.width, "height": image.height}
            entries.append({"id": len(entries) + 1, "file_name": image.file_name, **size})
            for shape in image.shapes:
                yield {"id": next(numbers), "image_id": len(entries), **_describe_for_coco(*shape)}

    categories = [
        {"id": number, "name": name, "supercategory": ""}
        for number, name in enumerate(names, start=1)
    ]
    with atomic_writer(path) as file:
        file.write(b'{"info": {"description": "predicted by PixelCLIP"}, "licenses": []')
        lists: Mapping[str, Iterable[Any]]
        lists = {"categories": categories, "annotations": annotations(), "images": entries}
        for name, content in lists.items():
            file.write(f',\n"{name}": '.encode())
            _write_list(file, content)
        file.write(b"}\n")
    return [path]


def _describe_for_coco(region: Region, polygon: Polygon | None) -> dict[str, Any]:
    return {
        "category_id": region.index + 1,
        "segmentation": region.rle if polygon is None else [polygon.ravel().tolist()],
        "area": int(coco_mask.area(region.rle)),
        "bbox": _box(region),
        "iscrowd": 0,
        "score": round(region.similarity, 4),
    }


def _write_list(file: IO[bytes], entries: Iterable[Any]) -> None:
    """Write a JSON list, an entry per line, of which one is in memory at a time."""
    file.write(b"[")
    for number, entry in enumerate(entries):
        file.write((",\n" if number else "\n").encode() + json.dumps(entry).encode())
    file.write(b"]")


def _write_cvat(output: Path, names: Sequence[str], images: Iterable[LabeledImage]) -> list[Path]:
    """Write the annotations, and the labels that the "Raw" tab of a new task takes."""
    path, labels_path = output / "cvat.xml", output / "cvat_labels.json"
    score = {"name": "score", "input_type": "text", "mutable": False, "default_value": ""}
    attributes = [{**score, "values": [""]}]
    labels: list[dict[str, Any]] = [
        {"name": name, "color": color, "type": "any", "attributes": attributes}
        for name, color in zip(names, _html_colors(names), strict=True)
    ]
    meta = ElementTree.Element("meta")
    table = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
    for label in labels:
        element = ElementTree.SubElement(table, "label")
        for key in ("name", "color", "type"):
            ElementTree.SubElement(element, key).text = label[key]
    with atomic_writer(path) as file:
        file.write(b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        file.write(b"<version>1.1</version>\n" + ElementTree.tostring(meta))
        for number, image in enumerate(images):
            file.write(b"\n" + ElementTree.tostring(_describe_for_cvat(number, image)))
        file.write(b"\n</annotations>\n")
    write_text(labels_path, json.dumps(labels, indent=1))
    return [path, labels_path]


def _html_colors(names: Sequence[str]) -> list[str]:
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in class_colors(names)]


def _describe_for_cvat(number: int, image: LabeledImage) -> ElementTree.Element:
    size = {"width": str(image.width), "height": str(image.height)}
    element = ElementTree.Element("image", {"id": str(number), "name": image.file_name, **size})
    for region, polygon in image.shapes:
        common = {"label": region.name, "source": "auto", "occluded": "0", "z_order": "0"}
        if polygon is None:
            shape = ElementTree.SubElement(element, "mask", common, **_encode_for_cvat(region))
        else:
            points = ";".join(f"{x},{y}" for x, y in polygon.tolist())
            shape = ElementTree.SubElement(element, "polygon", common, points=points)
        ElementTree.SubElement(shape, "attribute", name="score").text = f"{region.similarity:.4f}"
    return element


def _encode_for_cvat(region: Region) -> dict[str, str]:
    """Counts of zeros, of ones, ... in the region's box, row by row."""
    left, top, width, height = _box(region)
    inside = region.mask[top : top + height, left : left + width].ravel()  # (height * width,)
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=not inside[-1]))
    counts = np.diff(edges, prepend=0).tolist()
    box = {"left": left, "top": top, "width": width, "height": height}
    return {"rle": ", ".join(map(str, counts)), **{key: str(box[key]) for key in box}}


def _write_label_studio(
    output: Path, names: Sequence[str], images: Iterable[LabeledImage]
) -> list[Path]:
    """Write tasks with predictions, and the labeling interface that shows these."""
    path, interface_path = output / "label_studio.json", output / "label_studio_interface.xml"
    tags = {"brushlabels": "BrushLabels", "polygonlabels": "PolygonLabels"}
    used: set[str] = set()

    def tasks() -> Iterator[dict[str, Any]]:
        for image in images:
            task = _describe_for_label_studio(image)
            used.update(result["type"] for result in task["predictions"][0]["result"])
            yield task

    with atomic_writer(path) as file:
        _write_list(file, tasks())
    interface = ElementTree.Element("View")
    ElementTree.SubElement(interface, "Image", name="image", value="$image", zoom="true")
    for kind in sorted(used or {"brushlabels"}):
        choice = ElementTree.SubElement(interface, tags[kind], name=kind, toName="image")
        for name, color in zip(names, _html_colors(names), strict=True):
            ElementTree.SubElement(choice, "Label", value=name, background=color)
    ElementTree.indent(interface)
    write_text(interface_path, ElementTree.tostring(interface, encoding="unicode") + "\n")
    return [path, interface_path]


def _describe_for_label_studio(image: LabeledImage) -> dict[str, Any]:
    """A task with one prediction, whose score is the mean over the pixels of all its regions."""
    size = {"original_width": image.width, "original_height": image.height, "image_rotation": 0}
    results = [
        {"id": f"region_{number}", "to_name": "image", **size, **_encode_for_label_studio(*shape)}
        for number, shape in enumerate(image.shapes)
    ]
    prediction: dict[str, Any] = {"model_version": image.model, "result": results}
    if image.shapes:
        shares = [region.share for region, _ in image.shapes]
        scores = [region.similarity for region, _ in image.shapes]
        prediction["score"] = round(float(np.average(scores, weights=shares)), 4)
    return {"data": {"image": _locate(image.path)}, "predictions": [prediction]}


def _locate(path: Path | str) -> str:
    """Where Label Studio serves an image: by its path from the working directory, or from /."""
    if is_address(path):
        return str(path)
    relative = os.path.relpath(path)
    is_outside = Path(relative).parts[0] == os.pardir
    place = os.path.abspath(path)[1:] if is_outside else relative
    return f"/data/local-files/?d={urllib.parse.quote(os.fsencode(place))}"


def _encode_for_label_studio(region: Region, polygon: Polygon | None) -> dict[str, Any]:
    kind = "brushlabels" if polygon is None else "polygonlabels"
    if polygon is None:
        shape: dict[str, Any] = {"format": "rle", "rle": _encode_for_brush(region.mask)}
    else:
        height, width = region.rle["size"]
        shape = {"closed": True, "points": (polygon / (width, height) * 100).tolist()}
    value = {kind: [region.name], **shape}
    return {"type": kind, "from_name": kind, "score": round(region.similarity, 4), "value": value}


def _encode_for_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Bytes of thi.ng's rle-pack for a mask (H, W) as RGBA pixels, all channels 0 or 255.

    In front: the number of values (32 bits), bits per value (5) and of four lengths (4 each), less
    one. Then for each run: 1, which of the lengths (2 bits), the length less one, the value.
    """
    flat, longest = mask.ravel(), 2 ** _LENGTH_BITS[-1]  # (H * W,)
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = _CHANNELS * np.diff(starts, append=flat.size)
    parts = -(-lengths // longest)
    limited = np.full(parts.sum(), longest)
    limited[np.cumsum(parts) - 1] = lengths - (parts - 1) * longest  # the last part of each
    values = np.repeat(flat[starts], parts) * 255
    codes = 0b1_11 << 24 | (limited - 1) << 8 | values  # 1 + 2 + 16 + 8 bits
    bits = (codes[:, None] >> np.arange(26, -1, -1)) & 1  # (runs, 27)
    front = f"{_CHANNELS * flat.size:032b}{8 - 1:05b}"
    front += "".join(f"{size - 1:04b}" for size in _LENGTH_BITS)
    return np.packbits(np.concatenate([np.array(list(front), int), bits.ravel()])).tolist()


def _write_masks(output: Path, names: Sequence[str], images: Iterable[LabeledImage]) -> list[Path]:
    """Write the label maps and a table of the classes' colors."""
    path = output / "masks.zip"
    colors = (f"{red},{green},{blue}" for red, green, blue in class_colors(names))
    rows = [f"{name}:{color}::" for name, color in zip(names, colors, strict=True)]
    places = []
    with atomic_writer(path) as file, zipfile.ZipFile(file, "w") as archive:
        for image in images:
            places.append(image.name)
            _add_file(archive, f"SegmentationClass/{image.name}.png", image.label_map.read_bytes())
        _add_file(archive, "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *rows]))
        _add_file(archive, "ImageSets/Segmentation/default.txt", "\n".join(places))
    return [path]


def _add_file(archive: zipfile.ZipFile, name: str, content: bytes | str) -> None:
    """Add a file without the time, so that the same results give the same archive."""
    archive.writestr(zipfile.ZipInfo(name), content)


FORMATS: dict[str, Callable[[Path, Sequence[str], Iterable[LabeledImage]], list[Path]]] = {
    "coco": _write_coco,
    "cvat": _write_cvat,
    "label-studio": _write_label_studio,
    "masks": _write_masks,
}
