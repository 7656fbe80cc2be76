import numpy as np
from PIL import Image

from pixelclip.analysis.speed_workloads import write_images
from pixelclip.data.rle import sample_masks
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.sa1b_files import parse_mask_rles

SIZE = (120, 180)


def test_generated_images_can_be_trained_on(tmp_path):
    write_images(tmp_path, 2, SIZE, masks=40)
    records = load_sa1b(tmp_path)
    assert len(records) == 2
    for record in records:
        with Image.open(record["file_name"]) as image:
            pixels = np.asarray(image)
        assert pixels.shape == (*SIZE, 3)
        assert pixels.std() > 20
        with open(record["annotation_file_name"], "rb") as file:
            rles = parse_mask_rles(file.read())
        masks = sample_masks(rles, np.arange(SIZE[0]), np.arange(SIZE[1]), SIZE)
        areas = masks.mean(axis=(1, 2))
        assert len(areas) == 40
        assert areas.max() > 10 * np.median(areas[areas > 0])
        assert areas.max() < 0.7


def test_generated_images_are_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_images(tmp_path / name, 1, SIZE, masks=3)
    for name in ("sa_0.jpg", "sa_0.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
