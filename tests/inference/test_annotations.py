"""Files about all images: of which images, under which names, and from interrupted runs."""

import dataclasses
import json
import zipfile
from pathlib import PurePath
from xml.etree import ElementTree

import cli
import numpy as np
import predict as tool
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pixelclip import Predictor
from pixelclip.inference.annotation_formats import FORMATS
from pixelclip.inference.annotations import AnnotationSettings, _name_images
from pixelclip.inference.files import PredictionInput, PredictionSettings, predict_files
from pixelclip.inference.regions import DEFAULT_MIN_SHARE
from pixelclip.utils.shards import find_shard
from tests.inference.test_files import CONFIG, NAMES, write_clip

pytestmark = pytest.mark.usefixtures("shared_predictor")


@pytest.fixture(scope="module")
def toy_predictor():
    return Predictor.from_config(CONFIG, overrides=("MODEL.DEVICE", "cpu"))


@pytest.fixture
def shared_predictor(toy_predictor, monkeypatch):
    monkeypatch.setattr(Predictor, "from_config", lambda *_: toy_predictor)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three images of large blobs, one of them in a folder, and a file that is not an image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for index, name in enumerate(("a", "b", "deep/a")):
        pixels = np.random.default_rng(index).integers(0, 256, (3, 4, 3), np.uint8)
        image = Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST)
        image.save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"not an image")
    return tmp_path


def settings_for(output, *style):
    overrides = ("MODEL.DEVICE", "cpu")
    annotations = AnnotationSettings(*style) if style else None
    return PredictionSettings(NAMES, output, CONFIG, overrides=overrides, annotations=annotations)


def test_an_interrupted_run_gives_the_files_of_a_single_one(photos, toy_predictor, monkeypatch):
    once, again = photos / "once", photos / "again"
    report = predict_files(["photos"], settings_for(once, "coco"))
    assert (report.written, len(report.problems)) == (3, 1)
    real, calls = toy_predictor.model.score_images, []

    def interrupt_second(inputs):
        calls.append(inputs)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(inputs)

    with monkeypatch.context() as patch:
        patch.setattr(toy_predictor.model, "score_images", interrupt_second)
        with pytest.raises(KeyboardInterrupt):
            predict_files(["photos"], settings_for(again, "coco"))
    assert not (again / "coco.json").exists()
    assert predict_files(["photos"], settings_for(again, "coco")).kept == 1
    for style in FORMATS:
        reports = [predict_files(["photos"], settings_for(path, style)) for path in (once, again)]
        for path, same in zip(*(report.files for report in reports), strict=True):
            assert path.read_bytes() == same.read_bytes()


def test_shards_leave_the_file_to_a_last_call(photos):
    once, divided = settings_for(photos / "once", "coco"), settings_for(photos / "divided", "coco")
    predict_files(["photos"], once)
    reports = [predict_files(["photos"], divided, find_shard(f"{n}/2")) for n in (1, 2)]
    assert sum(report.written for report in reports) == 3
    assert not (divided.output / "coco.json").exists()
    assert predict_files(["photos"], divided).kept == 3
    expected = (once.output / "coco.json").read_bytes()
    assert (divided.output / "coco.json").read_bytes() == expected


def test_other_formats_need_no_labeling_but_regions_do(photos):
    output = photos / "out"
    assert predict_files(["photos"], settings_for(output)).written == 3
    masks = predict_files(["photos"], settings_for(output, "masks"))
    assert (masks.kept, masks.files) == (3, [output / "masks.zip"])
    (output / "a_labels.png").unlink()
    assert predict_files(["photos"], settings_for(output)).kept == 3
    assert predict_files(["photos"], settings_for(output, "masks")).written == 1
    assert predict_files(["photos"], settings_for(output, "coco")).written == 3
    for style in (("cvat",), ("coco", True), ("coco", False, 0.5)):
        report = predict_files(["photos"], settings_for(output, *style))
        assert (report.written, report.kept) == (0, 3)
    assert predict_files(["photos"], settings_for(output)).kept == 3


def test_regions_below_the_smallest_share_are_left_out(photos, toy_predictor):
    output = photos / "out"
    predict_files(["photos/a.png"], settings_for(output, "coco", False, 0.0))
    regions = toy_predictor(photos / "photos" / "a.png", NAMES).regions
    assert len(COCO(output / "coco.json").anns) == len(regions) > 1
    limit = regions[0].share
    predict_files(["photos/a.png"], settings_for(output, "coco", False, limit))
    [annotation] = COCO(output / "coco.json").anns.values()
    assert annotation["area"] == limit * 64 * 48


def test_the_background_has_no_regions(photos):
    settings = dataclasses.replace(settings_for(photos / "out", "coco"), background_threshold=1.0)
    predict_files(["photos/a.png"], settings)
    coco = COCO(photos / "out" / "coco.json")
    assert (len(coco.imgs), len(coco.anns)) == (1, 0)
    assert coco.cats[4]["name"] == "background"


def test_videos_are_left_out_and_kept(photos):
    write_clip(photos / "photos" / "clip.mp4", 2)
    settings = settings_for(photos / "out", "coco")
    assert predict_files(["photos"], settings).written == 4
    assert len(COCO(settings.output / "coco.json").imgs) == 3
    assert predict_files(["photos"], settings).kept == 4


def test_without_a_finished_image_nothing_is_written(photos):
    report = predict_files(["photos/bad.jpg"], settings_for(photos / "out", "coco"))
    assert report.files == []
    assert not (photos / "out" / "coco.json").exists()


def test_tools_know_images_by_their_places_in_the_folder():
    def names(*inputs):
        return _name_images([PredictionInput(path, PurePath(name), False) for path, name in inputs])

    assert names(("photos/a.jpg", "a"), ("photos/b/a.png", "b/a")) == ["a.jpg", "b/a.png"]
    assert names(("one/a.jpg", "a"), ("two/a.jpg", "a_2"), ("two/b.jpg", "b")) == [
        "one/a.jpg", "two/a.jpg", "b.jpg",
    ]  # fmt: skip
    assert names(("https://x.org/a.jpg?b", "a")) == ["https://x.org/a.jpg?b"]
    assert names(("\udcff\n\uffff.jpg", "\udcff\n\uffff")) == ["\\udcff\\n\\uffff.jpg"]


@pytest.mark.parametrize("character", ["\u202f", "\u3000", "\u200c", "\U0001f600"])
def test_spaces_and_joiners_of_all_scripts_stay(photos, character):
    """macOS names screenshots with U+202F; Persian words have U+200C in them."""
    name = f"3.00{character}PM"
    (photos / "photos" / "a.png").rename(photos / "photos" / f"{name}.png")
    settings = dataclasses.replace(settings_for(photos / "out", "cvat"), vocabulary=["sky", name])
    [path, _] = predict_files([f"photos/{name}.png"], settings).files[-2:]
    root = ElementTree.parse(path).getroot()
    assert root.find("image").get("name") == f"{name}.png"
    assert [label.findtext("name") for label in root.iter("label")] == ["sky", name]


def test_each_image_has_a_mask_of_its_own(photos):
    for name in ("a.jpg", "deep/b.png"):
        Image.open(photos / "photos" / "b.png").save(photos / "photos" / name)
    inputs = ["photos", photos / "photos" / "deep" / "b.png", photos / "photos" / "b.png"]
    [path] = predict_files(inputs[1:] + inputs[:1], settings_for(photos / "out", "masks")).files[
        -1:
    ]
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        written = {
            f"SegmentationClass/{name}.png" for name in ("b", "b_2", "a.jpg", "a.png", "deep/a")
        }
        assert len(names) == len(set(names))
        assert written == {name for name in names if name.startswith("Seg")}


@pytest.mark.parametrize(
    ("style", "names", "problem"),
    [
        (("voc",), NAMES, "expected one of coco, cvat, label-studio, masks"),
        (("masks", True), NAMES, "no polygons"),
        (("coco", False, 1.5), NAMES, "share of the image"),
        (("coco", False, float("nan")), NAMES, "share of the image"),
        (("masks",), [f"word {number}" for number in range(255)], "at most 254"),
        (("masks",), ["sky", "a:b"], "'a:b'"),
        (("cvat",), ["sky", "a\x01b"], r"'a.x01b'"),
    ],
)
def test_mistakes_are_said_before_anything_is_labeled(photos, style, names, problem):
    with pytest.raises(ValueError, match=problem):
        settings = dataclasses.replace(settings_for(photos / "out", *style), vocabulary=names)
        predict_files(["photos"], settings)
    assert not (photos / "out").exists()


def test_the_command_line(photos, capsys):
    words = ["--words", ", ".join(NAMES), "--config-file", CONFIG, "--output", "out"]
    assert cli.main(["predict", "photos", *words, "--format", "label-studio", "--polygons"]) == 1
    said = capsys.readouterr()
    assert "problem: photos/bad.jpg" in said.err
    assert said.out == "3 labeled, 1 with problems; wrote 11 files in out\n"
    tasks = json.loads((photos / "out" / "label_studio.json").read_text())
    assert [task["data"]["image"].partition("=")[2] for task in tasks] == [
        "photos/a.png", "photos/b.png", "photos/deep/a.png",
    ]  # fmt: skip
    choices = {action.dest: action for action in tool._parser()._actions}
    assert choices["format"].choices == tuple(FORMATS)
    assert choices["min_region"].default == DEFAULT_MIN_SHARE
    for mistake in (["a.jpg", "--polygons"], ["--camera", "0", "--format", "coco"]):
        with pytest.raises(SystemExit):
            tool.main([*mistake, "--words", "sky"])
        assert "--format" in capsys.readouterr().err
