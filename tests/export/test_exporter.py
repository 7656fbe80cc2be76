import dataclasses
import sys

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from torch.nn import functional as F

from pixelclip import PixelCLIP
from pixelclip.export import ExportError, export_model, exporter, save_text_features
from pixelclip.export.formats import FORMATS, ExportedModel
from pixelclip.modeling.inference_views import InferenceMode
from tests.export.conftest import EXTRA, TOY_NAMES

# Next to the encoder's own size: larger, smaller, wide, a single pixel.
IMAGE_SIZES = ((96, 96), (130, 175), (31, 40), (60, 333), (1, 1))


def random_images(batch, size, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, *size), generator=generator).float()


def read(path):
    return FORMATS[path.suffix].read(str(path))


def resize(scores, size):
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)


@pytest.mark.slow
@pytest.mark.parametrize("size", IMAGE_SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_gives_the_models_scores(toy_classifier, toy_model, size, batch):
    toy_model.set_vocabulary(TOY_NAMES)
    images = random_images(batch, size)
    scores = read(toy_classifier).run({"images": images})
    assert scores.shape == (batch, len(TOY_NAMES), 24, 24)
    expected = torch.stack([out["sem_seg"] for out in toy_model([{"image": i} for i in images])])
    torch.testing.assert_close(resize(scores, size), expected, atol=exporter.TOLERANCE, rtol=0)


def test_an_encoder_of_torch_export_gives_unit_vectors(tiny_model, tmp_path):
    model = tiny_model
    differences = export_model(model, "encoder", tmp_path / "encoder.pt2")
    assert len({shape[2:] for shape in differences}) == 2
    assert {shape[0] for shape in differences} == {1, 3}
    assert max(differences.values()) <= exporter.TOLERANCE
    images = random_images(2, (70, 50))
    features = read(tmp_path / "encoder.pt2").run({"images": images})
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
    any_words = tmp_path / f"any{suffix}"
    export_model(model, "encoder", tmp_path / f"encoder{suffix}")
    export_model(model, "classifier", tmp_path / f"fixed{suffix}", ["cat"])
    export_model(model, "classifier", any_words)
    names = ["cat", "sofa, couch", "wall", "floor", "window"]
    save_text_features(model, names, tmp_path / "words.npz")
    with np.load(tmp_path / "words.npz") as archive:
        assert archive["class_names"].tolist() == names
        text_features = torch.from_numpy(archive["text_features"])
    images = random_images(2, (75, 99))
    for count in (1, len(names)):
        inputs = {"images": images, "text_features": text_features[:count]}
        scores = read(any_words).run(inputs)
        model.set_vocabulary(names[:count])
        expected = model([{"image": images[1]}])[0]["sem_seg"]
        found = resize(scores, (75, 99))[1]
        torch.testing.assert_close(found, expected, atol=exporter.TOLERANCE, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_the_metadata_say_what_a_user_must_know(toy_classifier, toy_model, suffix, tmp_path):
    path = toy_classifier
    if suffix == ".pt2":
        path = tmp_path / "scenes.pt2"
        export_model(toy_model, "classifier", path, TOY_NAMES, test_sizes=(96, 400))
    metadata = read(path).metadata
    assert metadata["class_names"] == list(TOY_NAMES)
    assert (metadata["channel_order"], metadata["value_range"]) == ("RGB", [0, 255])
    assert (metadata["short_side"], metadata["long_side"]) == (96, 400)
    assert metadata["resolution"] == [96, 96]
    np.testing.assert_allclose(metadata["pixel_mean"], toy_model.pixel_mean.flatten())
    np.testing.assert_allclose(metadata["pixel_std"], toy_model.pixel_std.flatten())


@pytest.mark.parametrize(
    ("error", "wrong_images"),
    [(1e-3, slice(None)), (float("nan"), slice(None)), (float("nan"), slice(1, None))],
)
def test_a_file_of_other_numbers_does_not_stay(
    toy_model, tmp_path, monkeypatch, error, wrong_images
):
    path = tmp_path / "encoder.pt2"
    path.write_text("what was there before")
    right = FORMATS[".pt2"]

    def read_wrong(name):
        exported = right.read(name)

        def run(inputs):
            outputs = exported.run(inputs)
            outputs[wrong_images] += error
            return outputs

        return ExportedModel(run, exported.metadata)

    monkeypatch.setitem(FORMATS, ".pt2", right._replace(read=read_wrong))
    with pytest.raises(ExportError, match=r"was not written.*at most 1e-04 is allowed"):
        export_model(toy_model, "encoder", path)
    assert path.read_text() == "what was there before"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("kind", "name", "class_names", "message"),
    [
        ("decoder", "a.onnx", (), "'decoder'; expected 'encoder' or 'classifier'"),
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
    tiny_model.inference_views = dataclasses.replace(
        tiny_model.inference_views, mode=InferenceMode("sliding_window")
    )
    with pytest.raises(ValueError, match="looks at the whole image once"):
        export_model(tiny_model, "encoder", tmp_path / "a.pt2")


def test_a_missing_package_names_its_extra(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'onnxscript.*pip install "pixelclip\[export\]"'):
        export_model(tiny_model, "encoder", tmp_path / "a.onnx")


def test_text_features_need_their_suffix(tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        save_text_features(tiny_model, ["cat"], tmp_path / "words.onnx")
