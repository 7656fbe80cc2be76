"""Each format gives the regions back: read by pycocotools, or as its publisher describes it."""

import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from pixelclip.inference.annotation_formats import FORMATS, LabeledImage, find_polygon
from pixelclip.inference.regions import find_regions
from pixelclip.utils.class_colors import class_colors

NAMES = ["sky & <clouds>", "sofa, couch", "空"]


def make_image(tmp_path, size=(60, 40), name="one/a b.jpg", polygons=False):
    """The right half, the left one with a hole, a disk in it, and a pixel."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    labels = (x > width / 2).astype(np.uint8)
    labels[(y - 20) ** 2 + (x - 12) ** 2 < 64] = 2
    labels[-1, -1] = 2
    regions = find_regions(labels, np.full(size, 0.25) + labels / 10, NAMES)
    shapes = [(region, find_polygon(region) if polygons else None) for region in regions]
    Image.fromarray(labels).save(tmp_path / "labels.png")
    label_map, stem = tmp_path / "labels.png", name.removesuffix(".jpg")
    return LabeledImage(Path("photos", name), name, stem, label_map, width, height, "model", shapes)


@pytest.fixture
def images(tmp_path):
    return [make_image(tmp_path), make_image(tmp_path, (70, 90), "two.jpg")]


@pytest.fixture
def polygons(tmp_path):
    return [make_image(tmp_path, polygons=True)]


def masks_of(image):
    return [region.mask for region, _ in image.shapes]


def test_coco_is_read_by_pycocotools(tmp_path, images):
    [path] = FORMATS["coco"](tmp_path, NAMES, images)
    coco = COCO(path)
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == NAMES
    for number, image in enumerate(images, start=1):
        [entry] = coco.loadImgs(number)
        found = (entry["file_name"], entry["width"], entry["height"])
        assert found == (image.file_name, image.width, image.height)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=number))
        assert len(annotations) == len(image.shapes)
        for annotation, (region, _) in zip(annotations, image.shapes, strict=True):
            mask = coco.annToMask(annotation)
            assert np.array_equal(mask, region.mask)
            assert NAMES[annotation["category_id"] - 1] == region.name
            assert annotation["area"] == mask.sum()
            x, y, width, height = annotation["bbox"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum()
            assert annotation["score"] == pytest.approx(region.similarity, abs=1e-4)


def test_a_polygon_is_the_region_to_a_pixel(tmp_path, polygons):
    coco = COCO(FORMATS["coco"](tmp_path, NAMES, polygons)[0])
    annotations = coco.loadAnns(coco.getAnnIds())
    kinds = [type(annotation["segmentation"]) for annotation in annotations]
    assert kinds == [list, dict, list, dict]  # neither a hole nor a single pixel can be one
    for annotation, mask in zip(annotations, masks_of(polygons[0]), strict=True):
        differs = coco.annToMask(annotation) != mask
        near = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
        assert not (differs & ~near).any()
        assert differs.sum() <= 0.1 * mask.sum()
    assert len(annotations[2]["segmentation"][0]) < 2 * 20


def test_a_rectangle_is_a_polygon_of_four_corners():
    labels = np.zeros((20, 30), int)
    labels[5:15, 10:25] = 1
    polygon = find_polygon(find_regions(labels, labels / 2, NAMES)[1])
    assert len(polygon) == 4
    for corner in ((10, 5), (25, 5), (25, 15), (10, 15)):
        assert np.abs(polygon - corner).max(axis=1).min() <= 0.5


def read_cvat_mask(element, height, width):
    left, top, w, h = (int(element.get(key)) for key in ("left", "top", "width", "height"))
    counts = [int(count) for count in element.get("rle").split(", ")]
    mask = np.zeros((height, width), bool)
    values = np.repeat(np.arange(len(counts)) % 2, counts)
    mask[top : top + h, left : left + w] = values.reshape(h, w)
    return mask


def test_cvat_has_counts_of_the_boxes_rows(tmp_path, images):
    path, labels_path = FORMATS["cvat"](tmp_path, NAMES, images)
    root = ElementTree.parse(path).getroot()
    assert root.findtext("version") == "1.1"
    assert [label.findtext("name") for label in root.iter("label")] == NAMES
    assert [label["name"] for label in json.loads(labels_path.read_text())] == NAMES
    for image, element in zip(images, root.findall("image"), strict=True):
        assert element.get("name") == image.file_name
        size = int(element.get("height")), int(element.get("width"))
        assert size == (image.height, image.width)
        for shape, (region, _) in zip(element, image.shapes, strict=True):
            assert np.array_equal(read_cvat_mask(shape, *size), region.mask)
            assert shape.get("label") == region.name
            score = shape.find("attribute[@name='score']").text
            assert float(score) == pytest.approx(region.similarity, abs=1e-4)


def test_cvat_has_polygons_where_they_are_wanted(tmp_path, polygons):
    root = ElementTree.parse(FORMATS["cvat"](tmp_path, NAMES, polygons)[0]).getroot()
    shapes = root.find("image")
    assert [shape.tag for shape in shapes] == ["polygon", "mask", "polygon", "mask"]
    points = [pair.split(",") for pair in shapes[2].get("points").split(";")]
    assert np.array_equal(np.array(points, float), polygons[0].shapes[2][1])


def read_brush(data):
    """Values of thi.ng's rle-pack, as its reader takes them from the stream of bits."""
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def read(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    number, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < number:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert len(values) == number and len(bits) - place < 8
    return values


def test_label_studio_reads_brushes_as_rgba(tmp_path, images):
    images.append(make_image(tmp_path, (200, 200), "large.jpg"))  # runs above 16 bits
    path, interface_path = FORMATS["label-studio"](tmp_path, NAMES, images)
    interface = ElementTree.parse(interface_path).getroot()
    [brush] = interface.findall("BrushLabels")
    assert [label.get("value") for label in brush] == NAMES
    assert brush.get("toName") == interface.find("Image").get("name")
    for image, task in zip(images, json.loads(path.read_text()), strict=True):
        quoted = str(image.path).replace(" ", "%20")
        assert task["data"] == {"image": f"/data/local-files/?d={quoted}"}
        [prediction] = task["predictions"]
        assert prediction["model_version"] == "model"
        scores = [region.share * region.similarity for region, _ in image.shapes]
        assert prediction["score"] == pytest.approx(sum(scores), abs=1e-4)
        for result, (region, _) in zip(prediction["result"], image.shapes, strict=True):
            assert (result["original_width"], result["original_height"]) == (
                image.width, image.height,
            )  # fmt: skip
            assert result["from_name"] == brush.get("name")
            assert result["value"]["brushlabels"] == [region.name]
            pixels = np.reshape(read_brush(result["value"]["rle"]), (*region.mask.shape, 4))
            assert np.array_equal(pixels, np.repeat(region.mask[..., None] * 255, 4, axis=2))


def test_label_studio_has_polygons_in_percent(tmp_path, polygons):
    path, interface_path = FORMATS["label-studio"](tmp_path, NAMES, polygons)
    results = json.loads(path.read_text())[0]["predictions"][0]["result"]
    assert [result["type"] for result in results] == ["polygonlabels", "brushlabels"] * 2
    points = np.array(results[2]["value"]["points"]) * (0.4, 0.6)
    assert np.allclose(points, polygons[0].shapes[2][1])
    tags = [element.tag for element in ElementTree.parse(interface_path).getroot()]
    assert tags == ["Image", "BrushLabels", "PolygonLabels"]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("https://x.org/a b.jpg", "https://x.org/a b.jpg"),
        ("photos/ü.jpg", "/data/local-files/?d=photos/%C3%BC.jpg"),
        ("/elsewhere/a.jpg", "/data/local-files/?d=elsewhere/a.jpg"),
        ("..photos/a.jpg", "/data/local-files/?d=..photos/a.jpg"),
    ],
)
def test_label_studio_finds_images(tmp_path, images, path, place):
    image = images[0]._replace(path=path)
    [task] = json.loads(FORMATS["label-studio"](tmp_path, NAMES, [image])[0].read_text())
    assert task["data"]["image"] == place


def test_images_without_regions_are_listed(tmp_path, images):
    bare = [images[0]._replace(shapes=[])]
    assert len(COCO(FORMATS["coco"](tmp_path, NAMES, bare)[0]).imgs) == 1
    root = ElementTree.parse(FORMATS["cvat"](tmp_path, NAMES, bare)[0]).getroot()
    assert [len(image) for image in root.findall("image")] == [0]
    path, interface_path = FORMATS["label-studio"](tmp_path, NAMES, bare)
    assert json.loads(path.read_text())[0]["predictions"][0]["result"] == []
    assert ElementTree.parse(interface_path).getroot().find("BrushLabels") is not None


def test_masks_are_label_maps_with_a_table_of_colors(tmp_path, images):
    [path] = FORMATS["masks"](tmp_path, NAMES, images)
    with zipfile.ZipFile(path) as archive:
        places = archive.read("ImageSets/Segmentation/default.txt").decode().splitlines()
        assert places == ["one/a b", "two"]
        for place in places:
            content = archive.read(f"SegmentationClass/{place}.png")
            assert content == images[0].label_map.read_bytes()
        _, *rows = archive.read("labelmap.txt").decode().splitlines()
    assert [row.split(":")[0] for row in rows] == NAMES
    colors = [[int(value) for value in row.split(":")[1].split(",")] for row in rows]
    assert colors == class_colors(NAMES).tolist()
    again = path.read_bytes()
    FORMATS["masks"](tmp_path, NAMES, images)
    assert path.read_bytes() == again
