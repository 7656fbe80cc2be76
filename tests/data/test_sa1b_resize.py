import errno
import io
import json
import random
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from PIL import Image
from pycocotools import mask as coco_mask

from pixelclip.config import add_pixelclip_config
from pixelclip.data import sa1b_record_resize, sa1b_resize
from pixelclip.data.augmentation import pillow_nearest
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.sa1b_files import read_annotation_bytes, read_image_bytes
from pixelclip.data.sa1b_record_resize import resize_record
from pixelclip.data.sa1b_resize import resize_sa1b
from tests.data.sa1b_files import (
    annotation_bytes,
    encode,
    image_bytes,
    random_image,
    random_masks,
    write_files,
    write_tar,
)

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "real" / "sa1b"
HEIGHT, WIDTH, SHORT = 60, 91, 30


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def full_annotation(seed: int, height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    """The JSON of an image in all its fields, as SA-1B has them."""
    annotations = []
    for number, mask in enumerate(random_masks(seed, 5, height, width)):
        code = coco_mask.encode(np.asfortranarray(mask))
        fields = {
            "id": 700 + number,
            "segmentation": encode(mask),
            "bbox": coco_mask.toBbox(code).tolist(),
            "area": int(coco_mask.area(code)),
            "predicted_iou": 0.9,
            "stability_score": 0.95,
            "point_coords": [[width / 2, height / 4]],
            "crop_box": [0, 0, width, height],
        }
        annotations.append(fields)
    image = {"image_id": seed, "width": width, "height": height, "file_name": f"sa_{seed}.jpg"}
    return {"image": image, "annotations": annotations}


def pair(seed: int, height: int = HEIGHT, width: int = WIDTH) -> dict[str, bytes]:
    return {
        f"./sa_{seed}.jpg": image_bytes(random_image(seed, height, width), quality=95),
        f"./sa_{seed}.json": json.dumps(full_annotation(seed, height, width)).encode(),
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two tars in different folders, a folder of pairs, and two trees; images 1 to 8."""
    source = tmp_path / "source"
    (source / "more").mkdir(parents=True)
    write_tar(source / "sa_000001.tar", {**pair(2), **pair(1)})
    write_tar(source / "more" / "sa_000000.tar", {**pair(3), **pair(4)})
    write_files(source / "own", {**pair(5), **pair(6, WIDTH, HEIGHT)})
    for name, content in {**pair(7), **pair(8)}.items():
        tree = "annotations" if name.endswith(".json") else "images"
        write_files(source, {f"{tree}/a/{name}": content})
    return source


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the indices of tars, by their relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not path.name.endswith(".index.npz")
    }


def decode(code: dict[str, Any]) -> Any:
    return coco_mask.decode({**code, "counts": code["counts"].encode()})


def test_the_copy_has_the_layout_names_and_order_of_the_source(
    source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    report = resize_sa1b(source, output, SHORT, workers=1)
    hidden = {".resize_sa1b.json"}
    assert tree(output).keys() - hidden == tree(source).keys()
    before, after = load_sa1b(source), load_sa1b(output)
    assert [one["image_id"] for one in after] == [one["image_id"] for one in before]
    with tarfile.open(output / "sa_000001.tar") as tar:
        assert tar.getnames() == ["./sa_1.jpg", "./sa_1.json", "./sa_2.jpg", "./sa_2.json"]
    assert (report.resized, report.kept, report.images, report.problems) == (4, 0, 8, ())
    assert report.bytes_before == sum(map(len, tree(source).values()))
    assert report.bytes_after == sum(len(tree(output)[name]) for name in tree(source))


def test_images_and_the_fields_of_their_masks_are_at_the_smaller_size(
    source: Path, tmp_path: Path
) -> None:
    resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    before, after = load_sa1b(source), load_sa1b(tmp_path / "output")
    for old, new in zip(before, after, strict=True):
        original = json.loads(read_annotation_bytes(old))
        content = json.loads(read_annotation_bytes(new))
        height, width = (46, 30) if old["image_id"] == "sa_6" else (30, 46)
        assert Image.open(io.BytesIO(read_image_bytes(new))).size == (width, height)
        assert content["image"] == {**original["image"], "height": height, "width": width}
        assert len(content["annotations"]) == len(original["annotations"])
        for one, resized in zip(original["annotations"], content["annotations"], strict=True):
            full = decode(one["segmentation"])
            rows, columns = map(pillow_nearest, full.shape, (height, width))
            mask = full[np.ix_(rows, columns)]
            code = coco_mask.encode(np.asfortranarray(mask))
            np.testing.assert_allclose(resized.pop("crop_box"), [0, 0, width, height])
            np.testing.assert_allclose(resized.pop("point_coords"), [[width / 2, height / 4]])
            assert resized == {
                "id": one["id"],
                "segmentation": encode(mask),
                "bbox": coco_mask.toBbox(code).tolist(),
                "area": mask.sum(),
                "predicted_iou": 0.9,
                "stability_score": 0.95,
            }


def test_small_images_and_their_masks_are_copied_byte_for_byte(tmp_path: Path) -> None:
    small, large = pair(1, 30, 44), pair(2, 31, 44)
    write_tar(tmp_path / "source.tar", {**small, **large})
    (tmp_path / "source").mkdir()
    (tmp_path / "source.tar").rename(tmp_path / "source" / "a.tar")
    report = resize_sa1b(tmp_path / "source", tmp_path / "output", SHORT, workers=1)
    assert (report.images, report.unchanged) == (2, 1)
    copy, resized = load_sa1b(tmp_path / "output")
    assert [read_image_bytes(copy), read_annotation_bytes(copy)] == list(small.values())
    assert Image.open(io.BytesIO(read_image_bytes(resized))).size == (43, 30)


def resize_files(tmp_path: Path, files: dict[str, bytes]) -> Any:
    """The outcome of a single record in a folder."""
    write_files(tmp_path / "one", files)
    (record,) = load_sa1b(tmp_path / "one")
    return resize_record(record, SHORT)


def test_a_mask_without_pixels_at_the_smaller_size_is_dropped_and_counted(tmp_path: Path) -> None:
    masks = np.zeros((3, 60, 90), np.uint8)
    masks[0, 10:30, 10:30] = masks[1, 0, 0] = masks[2, 5:9, 7:80] = 1
    files = {"x.jpg": image_bytes(random_image(0, 60, 90)), "x.json": annotation_bytes(masks)}
    resized = resize_files(tmp_path, files)
    assert resized.dropped_masks == 1
    annotations = json.loads(resized.annotation)["annotations"]
    assert [one["area"] for one in annotations] == [100, 2 * 36 + 2]


def test_an_image_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    files = {
        "x.jpg": image_bytes(random_image(0, 60, 90), exif=exif),
        "x.json": annotation_bytes(random_masks(0, 2, 90, 60)),
    }
    image = Image.open(io.BytesIO(resize_files(tmp_path, files).image))
    assert (image.size, dict(image.getexif())) == ((30, 45), {})


def test_a_png_stays_one_and_odd_optional_fields_stay_as_they_are(tmp_path: Path) -> None:
    content = json.loads(annotation_bytes(random_masks(0, 1, 60, 90)))
    content["annotations"][0] |= {"crop_box": "all", "point_coords": [1, 2, 3], "note": "mine"}
    files = {
        "x.png": image_bytes(random_image(0, 60, 90), "PNG"),
        "x.json": json.dumps(content).encode(),
    }
    resized = resize_files(tmp_path, files)
    assert Image.open(io.BytesIO(resized.image)).format == "PNG"
    (annotation,) = json.loads(resized.annotation)["annotations"]
    kept = {key: annotation[key] for key in ("crop_box", "point_coords", "note")}
    assert kept == {"crop_box": "all", "point_coords": [1, 2, 3], "note": "mine"}


def test_names_that_recur_in_a_tar_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    files = {f"{folder}/{name}": data for folder in "ab" for name, data in pair(1).items()}
    write_tar(tmp_path / "source" / "a.tar", files)
    resize_sa1b(tmp_path / "source", tmp_path / "output", SHORT, workers=1)
    assert len(load_sa1b(tmp_path / "output")) == 2


CORRUPT = {
    "image": {"./bad.jpg": b"no image"},
    "cannot be decoded": {"./bad.jpg": pair(9)["./sa_9.jpg"][:-400]},
    "JSON is malformed": {"./bad.json": b"{"},
    "annotations": {"./bad.json": b"{}"},
    "no masks": {"./bad.json": b'{"annotations": []}'},
    "mask 0 is for 61x91": {"./bad.json": annotation_bytes(random_masks(0, 1, 61, 91))},
    "all its masks vanish": {
        "./bad.json": annotation_bytes(np.eye(1, HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH) > 0)
    },
}


@pytest.mark.parametrize("problem", CORRUPT)
def test_a_corrupt_record_is_left_out_and_named(problem: str, tmp_path: Path) -> None:
    good = {name.replace("sa_9", "bad"): content for name, content in pair(9).items()}
    (tmp_path / "source").mkdir()
    write_tar(tmp_path / "source" / "a.tar", {**pair(1), **good, **CORRUPT[problem]})
    for kept in (0, 1):  # what is finished keeps its problems
        report = resize_sa1b(tmp_path / "source", tmp_path / "output", SHORT, workers=1)
        assert (report.kept, report.images) == (kept, 1)
        (text,) = report.problems
        assert "a.tar: bad: " in text and problem in text
    (record,) = load_sa1b(tmp_path / "output")
    assert record["image_id"] == "sa_1"


def test_what_is_left_out_of_a_folder_does_not_stay_from_before(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, content in {**pair(1), **pair(2)}.items():
        (source / name).write_bytes(content)
    resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    (source / "sa_2.jpg").write_bytes(b"not an image")
    assert resize_sa1b(source, tmp_path / "output", SHORT - 1, workers=1).images == 1
    assert [record["image_id"] for record in load_sa1b(tmp_path / "output")] == ["sa_1"]


def test_a_truncated_tar_is_named_and_made_again_when_it_is_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_tar(source / "a.tar", {**pair(1), **pair(2)})
    whole = (source / "a.tar").read_bytes()
    (source / "a.tar").write_bytes(whole[: len(whole) // 2])
    report = resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    assert report.images == 1 and "a.tar: it is truncated within" in report.problems[0]
    assert "truncated" in str(report)
    (source / "a.tar").write_bytes(whole)
    report = resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    assert (report.resized, report.images, report.problems) == (1, 2, ())


def test_a_file_that_cannot_be_read_now_is_tried_again(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(record: Any) -> bytes:
        raise sa1b_resize.CorruptRecordError("stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(sa1b_record_resize, "read_image_bytes", fail)
        report = resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
        assert (report.images, len(report.problems)) == (0, 8)
    report = resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    assert (report.resized, report.images, report.problems) == (4, 8, ())


def test_what_is_finished_is_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    before = tree(tmp_path / "output")
    with monkeypatch.context() as patch:
        patch.setattr(sa1b_resize, "resize_record", pytest.fail)
        again = resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    assert (again.resized, again.kept, again.images) == (0, 4, 8)
    assert again.bytes_after == first.bytes_after
    assert tree(tmp_path / "output") == before


def change_source(source: Path, output: Path) -> None:
    write_tar(source / "sa_000001.tar", {**pair(2), **pair(10)})


def remove_copy(source: Path, output: Path) -> None:
    (output / "sa_000001.tar").unlink()


def truncate_copy(source: Path, output: Path) -> None:
    (output / "sa_000001.tar").write_bytes(b"")


@pytest.mark.parametrize("change", [change_source, remove_copy, truncate_copy])
def test_what_has_changed_is_made_again(change: Any, source: Path, tmp_path: Path) -> None:
    resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    change(source, tmp_path / "output")
    report = resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    assert (report.resized, report.kept, report.images) == (1, 3, 8)
    assert len(load_sa1b(tmp_path / "output")) == 8


def test_another_short_side_makes_all_again(source: Path, tmp_path: Path) -> None:
    resize_sa1b(source, tmp_path / "output", 40, workers=1)
    assert resize_sa1b(source, tmp_path / "output", SHORT, workers=1).resized == 4
    resize_sa1b(source, tmp_path / "expected", SHORT, workers=1)
    assert tree(tmp_path / "output") == tree(tmp_path / "expected")


def test_files_that_it_has_not_made_are_not_replaced(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    for name in ("sa_000001.tar", "own/sa_5.json"):
        write_files(output, {name: b"an original"})
        with pytest.raises(FileExistsError, match=f"{name} would be replaced.*another output"):
            resize_sa1b(source, output, SHORT, workers=1)
        assert (output / name).read_bytes() == b"an original"
        (output / name).unlink()
    resize_sa1b(source, output, SHORT, workers=1)
    for text in ("{", "[]", '{"sa_000001.tar": {"short_side": 30}}'):
        (output / ".resize_sa1b.json").write_text(text)
        with pytest.raises(FileExistsError, match="would be replaced"):
            resize_sa1b(source, output, SHORT, workers=1)


def test_an_interrupted_run_resumes_with_the_unfinished_tar(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(record: Any, short_side: int) -> Any:
        if record["image_id"] == "sa_4":  # the second image of the second tar
            raise KeyboardInterrupt
        return resize_record(record, short_side)

    output = tmp_path / "output"
    resize_sa1b(source, output, 40, workers=1)
    whole = (output / "more" / "sa_000000.tar").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sa1b_resize, "resize_record", interrupt)
        resize_sa1b(source, output, SHORT, workers=1)
    assert not list(output.rglob("*.tmp"))
    assert (output / "more" / "sa_000000.tar").read_bytes() == whole
    report = resize_sa1b(source, output, SHORT, workers=1)
    assert report.kept > 0 and report.resized > 0 and report.images == 8
    resize_sa1b(source, tmp_path / "expected", SHORT, workers=1)
    assert tree(output) == tree(tmp_path / "expected")


def test_an_interrupted_change_of_the_short_side_counts_as_unfinished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a folder are replaced one by one: the old state must not vouch for them."""
    output, expected = tmp_path / "output", tmp_path / "expected"
    resize_sa1b(source, expected, SHORT, workers=1)
    resize_sa1b(source, output, SHORT, workers=1)

    def interrupt(record: Any, short_side: int) -> Any:
        if record["image_id"] == "sa_6":
            raise KeyboardInterrupt
        return resize_record(record, short_side)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sa1b_resize, "resize_record", interrupt)
        resize_sa1b(source, output, 40, workers=1)
    resize_sa1b(source, output, SHORT, workers=1)
    assert tree(output) == tree(expected)


def test_a_full_disk_is_explained_and_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", fail)
    with pytest.raises(OSError, match="cannot be written: No space.*MiB free.*output/.*tar"):
        resize_sa1b(source, tmp_path / "output", SHORT, workers=1)
    assert not [path for path in (tmp_path / "output").rglob("*.t*") if path.is_file()]


def test_folders_and_numbers_that_make_no_sense_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(source)
    for output in (source, source / "half", tmp_path, tmp_path / "link" / "half"):
        with pytest.raises(ValueError, match="the same or nested"):
            resize_sa1b(source, output)
    for options in ({"short_side": 0}, {"workers": 0}):
        with pytest.raises(ValueError, match="is 0; expected at least 1"):
            resize_sa1b(source, tmp_path / "output", **options)
    with pytest.raises(FileNotFoundError, match="missing is not a folder; give the one"):
        resize_sa1b(tmp_path / "missing", tmp_path / "output")
    with pytest.raises(FileNotFoundError, match="empty holds no image with masks; give"):
        resize_sa1b(tmp_path / "empty", tmp_path / "output")
    assert not (tmp_path / "output").exists()


def run_script(*arguments: object) -> subprocess.Popen[str]:
    script = ROOT / "datasets" / "prepare_sa1b.py"
    command = [sys.executable, script, *map(str, arguments), "--short-side", str(SHORT)]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_processes_that_share_an_output_make_the_same_copy(source: Path, tmp_path: Path) -> None:
    resize_sa1b(source, tmp_path / "expected", SHORT, workers=1)
    output = tmp_path / "output"
    runs = [run_script(source, "--output", output, "--workers", n) for n in (1, 3, 2)]
    texts = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert all("8 images" in text and "GB after" in text for text in texts)
    assert tree(output) == tree(tmp_path / "expected")


@pytest.mark.slow
def test_a_killed_run_leaves_no_broken_tar_and_resumes(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    code = f"""
import os, signal
from pixelclip.data import sa1b_resize
real = sa1b_resize.resize_record
def kill(record, short_side):
    if record["image_id"] == "sa_4":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(record, short_side)
sa1b_resize.resize_record = kill
sa1b_resize.resize_sa1b({str(source)!r}, {str(output)!r}, {SHORT}, workers=1)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    finished = [path for path in output.rglob("*.tar") if not path.name.startswith(".")]
    assert output / "more" / "sa_000000.tar" not in finished
    for path in finished:
        with tarfile.open(path) as tar:
            assert len(tar.getnames()) == 4
    resize_sa1b(source, output, SHORT, workers=1)
    resize_sa1b(source, tmp_path / "expected", SHORT, workers=1)
    assert tree(output) == tree(tmp_path / "expected")


@pytest.mark.slow
def test_the_script_names_what_is_wrong(source: Path, tmp_path: Path) -> None:
    run = run_script(source, "--output", source)
    assert run.communicate()[1].startswith("error: ") and run.returncode == 1
    write_files(source, {"own/bad.jpg": b"no image", "own/bad.json": b"{}"})
    run = run_script(source, "--output", tmp_path / "output", "--workers", 1)
    assert "bad.jpg: bad: " in run.communicate()[0] and run.returncode == 1


def published_cfg(scale: float) -> CfgNode:
    """The published sizes of images, crops and masks, for images a fraction as large."""
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN = (round(1024 * scale),)
    cfg.INPUT.MAX_SIZE_TRAIN = round(1333 * scale)
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [round(640 * scale)] * 2
    cfg.MODEL.PIXELCLIP.MASK_RESOLUTION = (80, 80)
    return cfg


def map_all(cfg: CfgNode, root: Path, seeds: int) -> list[dict[str, Any]]:
    mapper = MaskDatasetMapper(cfg, True)
    samples = []
    for position, record in enumerate(load_sa1b(root)):
        for seed in range(seeds):
            random.seed(seed)
            np.random.seed(1000 * position + seed)  # noqa: NPY002 (Detectron2's generator)
            torch.manual_seed(seed)
            samples.append(mapper.map_record(record))
    return samples


def mask_agreement(masks: torch.Tensor, others: torch.Tensor) -> float:
    """Mean IoU of each mask with the other one that fits best."""
    a, b = (one.flatten(1).float() for one in (masks, others))  # (N, H, W) -> (N, H*W)
    both = a @ b.T
    union = a.sum(1, keepdim=True) + b.sum(1) - both
    return float((both / union).amax(1).mean())


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference between two distribution functions."""
    values = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(one), values, side="right") / len(one) for one in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def compare_samples(cfg: CfgNode, before: Path, after: Path, seeds: int) -> dict[str, float]:
    """How samples of the same seeds differ, and how the distributions of their masks do."""
    originals, resized = (map_all(cfg, root, seeds) for root in (before, after))
    pairs = list(zip(originals, resized, strict=True))
    assert all(old["image"].shape == new["image"].shape for old, new in pairs)
    pixels = [(old["image"].float() - new["image"]).abs().mean() for old, new in pairs]
    areas = [
        np.concatenate([one["masks"].flatten(1).float().mean(1).numpy() for one in samples])
        for samples in (originals, resized)
    ]
    means, deviations = (
        [torch.stack([getattr(one["image"].float(), name)() for one in samples]).mean()
         for samples in (originals, resized)]
        for name in ("mean", "std")
    )  # fmt: skip
    return {
        "pixels": float(torch.stack(pixels).mean()),
        "mean": float(abs(means[0] - means[1])),
        "deviation": float(deviations[1] / deviations[0]),
        "masks": float(np.mean([mask_agreement(o["masks"], n["masks"]) for o, n in pairs])),
        "count": len(areas[1]) / len(areas[0]),
        "area": float(areas[1].mean() / areas[0].mean()),
        "areas": ks_distance(*areas),
    }


def test_samples_agree_with_those_of_the_originals(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    files = {name: content for seed in range(6) for name, content in pair(seed, 300, 450).items()}
    write_tar(tmp_path / "source" / "a.tar", files)
    resize_sa1b(tmp_path / "source", tmp_path / "output", 150, workers=1)
    found = compare_samples(published_cfg(0.2), tmp_path / "source", tmp_path / "output", 4)
    assert found["pixels"] < 2 and found["mean"] < 0.1, found
    assert abs(found["deviation"] - 1) < 0.01 and found["masks"] > 0.97, found
    assert abs(found["area"] - 1) < 0.01 and abs(found["count"] - 1) < 0.01, found
    assert found["areas"] < 0.03, found


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not next to this repository")
def test_samples_of_real_images_agree_with_those_of_the_originals(tmp_path: Path) -> None:
    before, after = tmp_path / "source", tmp_path / "output"
    before.mkdir()
    (before / "sa_000001.tar").symlink_to(REAL / "sa_000001.tar")
    report = resize_sa1b(before, after, 160)
    assert (report.images, report.problems) == (100, ())
    found = compare_samples(published_cfg(0.214), before, after, 2)
    assert found["pixels"] < 5 and found["mean"] < 0.1, found
    assert abs(found["deviation"] - 1) < 0.02 and found["masks"] > 0.9, found
    assert abs(found["area"] - 1) < 0.02 and abs(found["count"] - 1) < 0.02, found
    assert found["areas"] < 0.02, found
