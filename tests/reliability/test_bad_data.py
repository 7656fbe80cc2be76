"""Bad records among good ones: each is skipped, counted and named, and every batch is whole."""

import io
import itertools
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelclip import add_pixelclip_config
from pixelclip.data import sa1b_index
from pixelclip.data.loader import ResumableLoader
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.sa1b_files import (
    MAX_JSON_BYTES,
    MAX_MASKS,
    CorruptRecordError,
    parse_mask_rles,
    read_annotation_bytes,
    read_image_bytes,
)
from pixelclip.data.sa1b_index import TarIndexError, build_tar_index, load_tar_index
from pixelclip.engine import Trainer
from pixelclip.engine.hooks import CountSkippedRecords
from pixelclip.evaluation.evaluators import LabelMapEvaluator

from ..conftest import SMALL_TRAINING, register_test_set, unregister_test_set
from ..data.sa1b_files import (
    annotation_bytes,
    image_bytes,
    random_image,
    random_masks,
    write_tar,
)

SIDE = 64
IMAGE = image_bytes(random_image(0, SIDE, SIDE))
JSON = annotation_bytes(random_masks(0, 3, SIDE, SIDE))
PAIR = {".jpg": IMAGE, ".json": JSON}


def json_of(*segmentations, **keys):
    annotations = [{"segmentation": code, **keys} for code in segmentations]
    return json.dumps({"annotations": annotations}).encode()


def rle(counts, size=(SIDE, SIDE)):
    return {"size": list(size), "counts": counts}


def bomb(pixels):
    """A PNG of a few hundred kB that decodes to so many pixels of one bit."""
    side = int(pixels**0.5) + 1
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


BOMB = bomb(200e6)


def png_of_claimed_size(width, height):
    """A PNG whose header claims a size that its data do not have."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


# name -> (image, JSON, kind of break)
BAD_RECORDS = {
    "truncated JPEG": (IMAGE[: len(IMAGE) // 2], JSON, "image"),
    "JPEG of its header only": (IMAGE[:20], JSON, "image"),
    "HTML as .jpg": (b"<!DOCTYPE html><html><body>404</body></html>", JSON, "image"),
    "image of zero bytes": (b"", JSON, "image"),
    "image of zeros": (bytes(5000), JSON, "image"),
    "bomb of 200 megapixels": (BOMB, JSON, "image"),
    "PNG that claims 10^9 x 10^9 pixels": (png_of_claimed_size(10**9, 10**9), JSON, "image"),
    "PNG that claims no pixels": (png_of_claimed_size(0, 0), JSON, "image"),
    "strip of one pixel's height": (
        image_bytes(np.zeros((1, 3000, 3), np.uint8), "PNG"),
        JSON,
        "image",
    ),
    "JSON of zero bytes": (IMAGE, b"", "annotations"),
    "JSON cut off": (IMAGE, JSON[:-9], "annotations"),
    "JSON of HTML": (IMAGE, b"<html>", "annotations"),
    "JSON in UTF-16 without mark": (IMAGE, JSON.decode().encode("utf-16-be")[1:], "annotations"),
    "JSON nested without end": (IMAGE, b'{"annotations":' + b"[" * 100_000, "annotations"),
    "JSON of a number with 10^5 digits": (
        IMAGE,
        b'{"annotations": ' + b"9" * 100_000 + b"}",
        "annotations",
    ),
    "JSON above the limit": (IMAGE, b" " * (MAX_JSON_BYTES + 1), "file"),
    "JSON without annotations": (IMAGE, b"{}", "annotations"),
    "JSON without masks": (IMAGE, json_of(), "no masks"),
    "too many masks": (IMAGE, json_of(*[rle([SIDE**2])] * (MAX_MASKS + 1)), "annotations"),
    "polygon": (IMAGE, json_of([[0, 0, 9, 9, 0, 9]]), "annotations"),
    "RLE too short": (IMAGE, json_of(rle([5, 5])), "masks"),
    "RLE too long": (IMAGE, json_of(rle([SIDE**2, 1])), "masks"),
    "RLE text cut within a count": (IMAGE, json_of(rle("oo")), "masks"),
    "RLE count of more than 64 bits": (IMAGE, json_of(rle([2**70])), "masks"),
    "RLE counts whose sum overflows": (IMAGE, json_of(rle([2**62] * 4 + [SIDE**2])), "masks"),
    "RLE text whose count overflows": (IMAGE, json_of(rle("o" * 40 + "0")), "masks"),
    "RLE negative count": (IMAGE, json_of(rle([SIDE**2 + 5, -5])), "masks"),
    "RLE NaN as count": (IMAGE, json_of(rle([float("nan")])), "masks"),
    "RLE without counts": (IMAGE, json_of({"size": [SIDE, SIDE]}), "masks"),
    "RLE counts of another type": (IMAGE, json_of(rle({"a": 1})), "masks"),
    "RLE of 10^9 x 10^9 pixels": (IMAGE, json_of(rle([10**18], (10**9, 10**9))), "masks"),
    "RLE of NaN pixels": (IMAGE, json_of(rle([1], (float("nan"), 1))), "masks"),
    "RLE of a negative size": (IMAGE, json_of(rle([1], (-SIDE, -SIDE))), "masks"),
    "masks of another size than the image": (
        IMAGE,
        annotation_bytes(random_masks(0, 3, SIDE, SIDE + 1)),
        "masks",
    ),
    "masks of the image turned": (
        image_bytes(random_image(0, SIDE, 2 * SIDE)),
        annotation_bytes(random_masks(0, 3, 2 * SIDE, SIDE)),
        "masks",
    ),
}


@pytest.fixture(scope="module")
def map_record():
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_list(SMALL_TRAINING)
    cfg.MODEL.PIXELCLIP.MASK_RESOLUTION = (32, 32)
    return MaskDatasetMapper(cfg, True).map_record


def load_batches(records, map_record, count=4):
    loader = ResumableLoader(records, map_record, total_batch_size=2, seed=0)
    return loader, list(itertools.islice(iter(loader), count))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_record_is_skipped_counted_and_named(name, packed, map_record, tmp_path, caplog):
    image, annotations, kind = BAD_RECORDS[name]
    files = {"bad.jpg": image, "bad.json": annotations, "good.jpg": IMAGE, "good.json": JSON}
    if packed:
        write_tar(tmp_path / "sa_0.tar", files)
    else:
        for file_name, content in files.items():
            (tmp_path / file_name).write_bytes(content)
    loader, batches = load_batches(load_sa1b(tmp_path), map_record)
    assert [sample["image_id"] for batch in batches for sample in batch] == ["good"] * 8
    # Each epoch of two positions meets it once, and again where it is drawn as its own replacement.
    assert set(loader.skipped) == {kind} and loader.skipped[kind] >= 4
    assert "Skipped corrupt record 1: bad of " in caplog.text


def test_odd_numbers_beside_the_masks_do_no_harm(map_record, tmp_path):
    nan = float("nan")
    content = json_of(rle([0, SIDE**2]), bbox=[nan, nan, -1e300, 1e999], area=nan, id="x" * 10_000)
    (tmp_path / "a.jpg").write_bytes(IMAGE)
    (tmp_path / "a.json").write_bytes(content)
    loader, batches = load_batches(load_sa1b(tmp_path), map_record, count=1)
    assert not loader.skipped
    assert all(sample["masks"].any() for sample in batches[0])


def test_a_tar_cut_off_in_the_middle_gives_what_is_whole(map_record, tmp_path, caplog):
    files = {
        f"{i}{suffix}": data
        for i in range(4)
        for suffix, data in ((".jpg", IMAGE), (".json", JSON))
    }
    tar = tmp_path / "sa_0.tar"
    write_tar(tar, files)
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    records = load_sa1b(tmp_path)
    assert 0 < len(records) < 4
    loader, _ = load_batches(records, map_record)
    assert not loader.skipped
    assert "sa_0.tar: it is truncated" in caplog.text


@pytest.mark.parametrize("same_size", [True, False], ids=["same size", "other size"])
def test_a_tar_replaced_while_in_use_is_never_read(same_size, map_record, tmp_path):
    tar = tmp_path / "sa_0.tar"
    write_tar(tar, {"a.jpg": IMAGE, "a.json": JSON})
    records = load_sa1b(tmp_path)
    load_batches(records, map_record)
    other = {"b.jpg": image_bytes(random_image(1, SIDE, SIDE)), "b.json": JSON}
    if same_size:  # cut or padded to the very same spans
        other["b.jpg"] = other["b.jpg"][: len(IMAGE)].ljust(len(IMAGE), b"\0")
    else:
        other["c.jpg"] = IMAGE * 9
    write_tar(tmp_path / "new", other)
    status = tar.stat()
    os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    os.replace(tmp_path / "new", tar)
    assert same_size == (tar.stat().st_size == status.st_size)
    with pytest.raises(RuntimeError, match=r"sa_0\.tar was replaced or changed.*--resume"):
        load_batches(records, map_record)
    _, batches = load_batches(load_sa1b(tmp_path)[:], lambda record: dict(record))
    assert {sample["image_id"] for batch in batches for sample in batch} == {"b"}


def test_a_tar_replaced_while_it_is_indexed_is_never_read(tmp_path, monkeypatch):
    tar = tmp_path / "sa_0.tar"
    write_tar(tar, {"a.jpg": IMAGE, "a.json": JSON})

    walk = sa1b_index._walk

    def walk_and_replace(*arguments):
        damage = walk(*arguments)
        write_tar(tar, {"b.jpg": IMAGE, "b.json": JSON})
        os.utime(tar, ns=(0, 0))
        return damage

    monkeypatch.setattr(sa1b_index, "_walk", walk_and_replace)
    build_tar_index(str(tar))
    monkeypatch.undo()
    assert load_tar_index(str(tar)) is None
    (record,) = load_sa1b(tmp_path)[:]
    assert read_image_bytes(record) == IMAGE and record["image_id"] == "b"


@pytest.mark.parametrize("tiny_config_of_each", ["vit"], indirect=True)
def test_training_continues_among_bad_records_and_stops_above_the_share(
    train_config, caplog, monkeypatch
):
    root = Path(os.environ["SAM_DATASETS"])
    for index, (image, annotations, _) in enumerate(list(BAD_RECORDS.values())[1:4]):
        (root / f"bad_{index}.jpg").write_bytes(image)
        (root / f"bad_{index}.json").write_bytes(annotations)
    Trainer(train_config).train()  # 3 of 9 records, but too few were read to judge
    assert "Skipped corrupt record 1" in caplog.text
    summary = [line for line in caplog.messages if line.startswith("Skipped") and "(image:" in line]
    assert len(summary) == 1
    train_config.SOLVER.MAX_ITER = 100
    monkeypatch.setattr(CountSkippedRecords, "RECORDS_BEFORE_CHECK", 30)
    train_config.DATASETS.TEST = ()
    trainer = Trainer(train_config)
    with pytest.raises(RuntimeError, match=r"records read so far are corrupt \(image: \d+\)"):
        trainer.train()
    assert 8 < trainer.iter < 20


def write_labels(folder, label):
    """Replace the first label of the test set of three pictures."""
    Image.fromarray(label).save(folder / "0.png")


@pytest.fixture
def test_set(tmp_path):
    register_test_set(tmp_path / "pictures", "bad_pictures_sem_seg")
    yield tmp_path / "pictures"
    unregister_test_set("bad_pictures_sem_seg")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: write_labels(f, np.zeros((31, 40), np.uint8)), r"0\.png has \(31, 40\) pixels"),
        (lambda f: write_labels(f, np.zeros((30, 40, 3), np.uint8)), r"0\.png has shape"),
        (lambda f: write_labels(f, np.full((30, 40), 7, np.uint8)), r"0\.png has the labels \[7\]"),
        (lambda f: (f / "0.png").write_bytes(b""), r"0\.png cannot be read as a label map"),
        (lambda f: (f / "0.png").write_bytes(b"<html>"), r"0\.png cannot be read as a label map"),
        (lambda f: (f / "0.png").write_bytes(BOMB), r"0\.png cannot be read.*bomb"),
        (lambda f: (f / "0.png").unlink(), r"0\.png cannot be read as a label map"),
    ],
    ids=["size", "channels", "values", "empty", "html", "bomb", "missing"],
)
def test_a_bad_label_is_named_by_the_evaluation(test_set, damage, problem):
    evaluator = LabelMapEvaluator("bad_pictures_sem_seg")
    evaluator.reset()
    prediction = {"labels": torch.zeros((30, 40), dtype=torch.long)}
    inputs = [{"file_name": str(test_set / "0.jpg")}]
    evaluator.process(inputs, [prediction])
    damage(test_set)
    with pytest.raises(ValueError, match=problem):
        evaluator.process(inputs, [prediction])


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", IMAGE[:900], BOMB],
    ids=["empty", "html", "truncated", "bomb"],
)
def test_a_bad_test_picture_is_named_by_the_evaluation(train_config, content):
    (name,) = train_config.DATASETS.TEST
    Path(DatasetCatalog.get(name)[1]["file_name"]).write_bytes(content)
    with pytest.raises(ValueError, match=r"1\.jpg cannot be evaluated"):
        list(Trainer.build_test_loader(train_config, name))


# Fuzzing. More examples: HYPOTHESIS_EXAMPLES=20000.
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "25"))
fuzz = settings(
    max_examples=EXAMPLES,
    # The folder is the same for all examples of a test, which write the same files into it.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
counts = st.one_of(
    st.lists(st.integers(-3, 2 * SIDE**2) | st.integers() | st.floats(), max_size=9),
    st.text(max_size=20),
    st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=20),
    json_values,
)
sizes = st.sampled_from([[SIDE, SIDE]] * 8 + [[0, 0], [10**9, 10**9]]) | json_values
codes = st.fixed_dictionaries({"size": sizes, "counts": counts}) | json_values
damages = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9)), max_size=6)


def damage(data, changes):
    """Overwrite bytes at the given places, each a share of the length."""
    damaged = bytearray(data)
    for place, content in changes:
        start = int(place * len(data))
        damaged[start : start + len(content)] = content
    return bytes(damaged)


def map_or_refuse(map_record, folder, image, annotations):
    """A sample that is whole, or None where the record was refused in the one way."""
    (folder / "a.jpg").write_bytes(image)
    (folder / "a.json").write_bytes(annotations)
    (record,) = load_sa1b(folder)[:]
    try:
        sample = map_record(record)
    except CorruptRecordError as error:
        assert "a.jpg" in str(error)
        return None
    assert sample["image"].shape == sample["image_strong"].shape
    assert sample["masks"].shape[1:] == (32, 32) and sample["masks"].any(dim=(1, 2)).all()
    return sample


@fuzz
@given(code=codes)
def test_any_run_length_code_in_a_json_is_read_or_refused(code, map_record, tmp_path):
    annotations = json.dumps({"annotations": [{"segmentation": code}]}).encode()
    sample = map_or_refuse(map_record, tmp_path, IMAGE, annotations)
    if sample is not None:  # then pycocotools reads it too, as a mask of this size
        text = code["counts"]
        if not isinstance(text, str):
            text = coco_mask.frPyObjects({"size": code["size"], "counts": text}, *code["size"])
            text = text["counts"]
        decoded = coco_mask.decode({"size": code["size"], "counts": text})
        assert decoded.shape == (SIDE, SIDE)


@fuzz
@given(content=json_values)
def test_any_json_is_read_or_refused(content):
    with pytest.raises(CorruptRecordError):
        parse_mask_rles(json.dumps(content).encode())


@fuzz
@given(image_damage=damages, json_damage=damages, end=st.floats(0, 1) | st.just(1.0))
def test_a_damaged_record_is_read_or_refused(image_damage, json_damage, end, map_record, tmp_path):
    image = damage(IMAGE, image_damage)[: int(end * len(IMAGE))]
    map_or_refuse(map_record, tmp_path, image, damage(JSON, json_damage))


def read_all(records):
    """The bytes of all records, whose spans were checked against their tar."""
    for record in records:
        size = os.path.getsize(record["file_name"])
        for span in (record["image_span"], record["annotation_span"]):
            assert min(span) >= 0 and sum(span) <= size
        read_image_bytes(record)
        if record["annotation_span"][1] <= MAX_JSON_BYTES:
            read_annotation_bytes(record)


TAR_FILES = {f"{i}{suffix}": b"x" * (100 * i) for i in range(3) for suffix in (".jpg", ".json")}


@fuzz
@given(changes=damages, end=st.floats(0, 1) | st.just(1.0))
def test_a_damaged_tar_is_read_as_far_as_it_is_whole_or_refused(changes, end, tmp_path):
    tar = tmp_path / "sa_0.tar"
    write_tar(tar, TAR_FILES)
    data = tar.read_bytes()[:8192]
    tar.write_bytes(damage(data, changes)[: int(end * len(data))])
    for _ in range(2):  # the second takes the kept index
        try:
            read_all(load_sa1b(tmp_path))
        except (TarIndexError, FileNotFoundError) as error:
            assert str(tmp_path) in str(error)
    (tmp_path / "sa_0.tar.index.npz").unlink(missing_ok=True)


@fuzz
@given(changes=damages, end=st.floats(0, 1) | st.just(1.0))
def test_a_damaged_index_is_never_believed(changes, end, tmp_path):
    tar = tmp_path / "sa_0.tar"
    if not tar.exists():
        write_tar(tar, TAR_FILES)
    build_tar_index(str(tar))
    index = tmp_path / "sa_0.tar.index.npz"
    data = index.read_bytes()
    index.write_bytes(damage(data, changes)[: int(end * len(data))])
    records = load_sa1b(tmp_path)
    read_all(records)
    assert [record["image_id"] for record in records] == ["0", "1", "2"]


def test_an_index_that_unpacks_to_more_than_its_size_is_not_unpacked(tmp_path, caplog):
    tar = tmp_path / "sa_0.tar"
    write_tar(tar, TAR_FILES)
    build_tar_index(str(tar))
    index = tmp_path / "sa_0.tar.index.npz"
    with np.load(index) as kept:
        arrays = dict(kept)
    arrays["problems"] = np.zeros(10**8, np.uint8)
    np.savez_compressed(index, **arrays)
    assert index.stat().st_size < 10**6
    assert load_tar_index(str(tar)) is None
    assert "its arrays are compressed" in caplog.text


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "\0evil"])
def test_member_names_lead_nowhere(name, tmp_path):
    files = {f"{stem}{suffix}": data for stem in (name, "good") for suffix, data in PAIR.items()}
    write_tar(tmp_path / "sa_0.tar", files)
    for record in load_sa1b(tmp_path):
        assert record["file_name"] == str(tmp_path / "sa_0.tar")
        assert "/" not in record["image_id"]
        assert read_image_bytes(record) == IMAGE
    assert sorted(os.listdir(tmp_path)) == ["sa_0.tar", "sa_0.tar.index.npz"]
