import dataclasses
import sys

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from torch.nn import functional as F

from pixelclip import PixelCLIP
from pixelclip.export import ExportError, export_model, exporter, save_text_features
from pixelclip.export.formats import get_format
from pixelclip.modeling.inference_views import InferenceMode
from tests.export.conftest import EXTRA, TOY_NAMES

# Beside the encoder's own size: larger, smaller, wide, a single pixel.
PICTURE_SIZES = ((96, 96), (130, 175), (31, 40), (60, 333), (1, 1))


def random_images(batch, size, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, *size), generator=generator).float()


def resize(scores, size):
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)


@pytest.mark.slow
@pytest.mark.parametrize("size", PICTURE_SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_gives_the_models_scores(toy_classifier, toy_model, size, batch):
    toy_model.set_vocabulary(TOY_NAMES)
    images = random_images(batch, size)
    exported = get_format(toy_classifier.path).read(str(toy_classifier.path))
    scores = exported.run({"images": images})
    assert scores.shape == (batch, len(TOY_NAMES), 24, 24)
    expected = torch.stack([out["sem_seg"] for out in toy_model([{"image": i} for i in images])])
    torch.testing.assert_close(resize(scores, size), expected, atol=exporter.TOLERANCE, rtol=0)


@pytest.mark.slow
def test_the_report_has_two_sizes_in_two_batches(toy_classifier):
    shapes = [check.shape for check in toy_classifier.checks]
    assert len({shape[2:] for shape in shapes}) == 2
    assert {shape[0] for shape in shapes} == {1, 3}
    assert 0 < toy_classifier.largest_difference <= exporter.TOLERANCE
    assert toy_classifier.num_bytes == toy_classifier.path.stat().st_size


def test_an_encoder_of_torch_export_gives_unit_vectors(tiny_model, tmp_path):
    model = tiny_model
    report = export_model(model, "encoder", tmp_path / "encoder.pt2")
    images = random_images(2, (70, 50))
    features = get_format(report.path).read(str(report.path)).run({"images": images})
    with torch.no_grad():
        expected = F.normalize(model.image_encoder(model.preprocess(list(images))), dim=-1)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_kind_of_file_holds(tiny_config_of_each: CfgNode, suffix, tmp_path):
    for package in EXTRA:
        pytest.importorskip(package)
    tiny_config_of_each.MODEL.CLIP.RESOLUTION = (96, 128)
    torch.manual_seed(0)
    model = PixelCLIP(tiny_config_of_each)
    encoder = export_model(model, "encoder", tmp_path / f"encoder{suffix}")
    fixed = export_model(model, "classifier", tmp_path / f"fixed{suffix}", ["cat"])
    any_words = export_model(model, "classifier", tmp_path / f"any{suffix}")
    assert all(r.largest_difference <= exporter.TOLERANCE for r in (encoder, fixed, any_words))
    names = ["cat", "sofa, couch", "wall", "floor", "window"]
    save_text_features(model, names, tmp_path / "words.npz")
    with np.load(tmp_path / "words.npz") as archive:
        assert archive["class_names"].tolist() == names
        text_features = torch.from_numpy(archive["text_features"])
    images = random_images(2, (75, 99))
    for count in (1, len(names)):
        inputs = {"images": images, "text_features": text_features[:count]}
        scores = get_format(any_words.path).read(str(any_words.path)).run(inputs)
        model.set_vocabulary(names[:count])
        expected = model([{"image": images[1]}])[0]["sem_seg"]
        found = resize(scores, (75, 99))[1]
        torch.testing.assert_close(found, expected, atol=exporter.TOLERANCE, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_the_metadata_say_what_a_user_must_know(toy_classifier, toy_model, suffix, tmp_path):
    path = toy_classifier.path
    if suffix == ".pt2":
        path = tmp_path / "scenes.pt2"
        export_model(toy_model, "classifier", path, TOY_NAMES, test_sizes=(96, 400))
    metadata = get_format(path).read(str(path)).metadata
    assert metadata["class_names"] == list(TOY_NAMES)
    assert (metadata["channel_order"], metadata["value_range"]) == ("RGB", [0, 255])
    assert (metadata["short_side"], metadata["long_side"]) == (96, 400)
    assert metadata["resolution"] == [96, 96]
    np.testing.assert_allclose(metadata["pixel_mean"], toy_model.pixel_mean.flatten())
    np.testing.assert_allclose(metadata["pixel_std"], toy_model.pixel_std.flatten())


@pytest.mark.parametrize(
    "error", [1e-3, pytest.param(float("nan"), marks=pytest.mark.slow)]
)
def test_a_file_of_other_numbers_does_not_stay(toy_model, tmp_path, monkeypatch, error):
    path = tmp_path / "encoder.pt2"
    path.write_text("what was there before")
    model_class = type(get_format(path)).read

    def read_wrong(self, name):
        exported = model_class(self, name)
        right = exported.run
        exported.run = lambda inputs: right(inputs) + error
        return exported

    monkeypatch.setattr(type(get_format(path)), "read", read_wrong)
    with pytest.raises(ExportError, match=r"was not written.*at most 1e-04 is allowed"):
        export_model(toy_model, "encoder", path)
    assert path.read_text() == "what was there before"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("kind", "name", "class_names", "message"),
    [
        ("decoder", "a.onnx", (), "'decoder'; it must be one of encoder, classifier"),
        ("encoder", "a.onnx", ("cat",), "An encoder has no classes"),
        ("encoder", "a.pth", (), "must end in .onnx or .pt2"),
        ("encoder", "onnx", (), "must end in .onnx or .pt2"),
        ("classifier", "a.pt2", ("cat", " "), "Class name 1 is empty"),
    ],
)
def test_a_wrong_request_is_refused(toy_model, tmp_path, kind, name, class_names, message):
    with pytest.raises(ValueError, match=message):
        export_model(toy_model, kind, tmp_path / name, class_names)
    assert not list(tmp_path.iterdir())


def test_windows_are_refused(tiny_model, tmp_path):
    tiny_model.inference_mode = dataclasses.replace(InferenceMode(), name="sliding_window")
    with pytest.raises(ValueError, match="looks at the whole picture once"):
        export_model(tiny_model, "encoder", tmp_path / "a.pt2")


def test_a_missing_package_names_its_extra(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'onnxscript.*pip install -e "\.\[export\]"'):
        export_model(tiny_model, "encoder", tmp_path / "a.onnx")


def test_text_features_need_their_suffix(tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        save_text_features(tiny_model, ["cat"], tmp_path / "words.onnx")
