"""What a prediction says, draws and saves."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from pixelclip.inference.result import Prediction
from pixelclip.modeling.inference_views import Region, ScoredImage, find_best_classes
from pixelclip.utils.visualization import class_colors


def make_prediction(scores, background_index=None, size=None):
    """A prediction of scores (C, h, w) for a gray image."""
    size = size or tuple(scores.shape[1:])
    scored = ScoredImage([Region(0, 0, *size)], [scores], size)
    labels, best = find_best_classes(*scored)
    names = tuple(f"class {number}" for number in range(len(scores)))
    image = np.full((*size, 3), 128, np.uint8)
    return Prediction(image, names, labels, best, background_index, scored)


@pytest.fixture
def prediction():
    generator = torch.Generator().manual_seed(0)
    return make_prediction(torch.rand(5, 12, 16, generator=generator), size=(48, 64))


def test_similarity_belongs_to_the_labels(prediction):
    assert prediction.similarity.shape == (5, 48, 64)
    assert torch.equal(prediction.similarity.argmax(dim=0), prediction.labels)
    assert torch.equal(prediction.similarity.amax(dim=0), prediction.best_similarity)
    assert prediction.similarity is prediction.similarity  # made once


def test_shares_are_those_of_the_label_map(prediction):
    labels = prediction.labels.numpy()
    assert sum(share.share for share in prediction.shares) == pytest.approx(1)
    for share in prediction.shares:
        is_class = labels == share.index
        assert share.name == f"class {share.index}"
        assert share.share == pytest.approx(is_class.mean())
        mean = prediction.similarity[share.index].numpy()[is_class].mean()
        assert share.similarity == pytest.approx(mean, rel=1e-5)
    assert [s.share for s in prediction.shares] == sorted(
        (s.share for s in prediction.shares), reverse=True
    )
    scores = torch.zeros(4, 2, 2)
    scores[2] = 0.5
    [only] = make_prediction(scores).shares
    assert (only.index, only.share, only.similarity) == (2, 1.0, 0.5)


def test_the_background_is_no_region(prediction):
    assert {region.index for region in prediction.regions} == set(range(5))
    pixels = sum(region.share for region in prediction.regions)
    assert pixels == pytest.approx(1)
    without = dataclasses.replace(prediction, background_index=2)
    assert {region.index for region in without.regions} == {0, 1, 3, 4}


def test_supervision_gets_the_regions(prediction):
    supervision = pytest.importorskip("supervision")
    detections = prediction.to_supervision(min_share=0.01)
    assert isinstance(detections, supervision.Detections)
    regions = [region for region in prediction.regions if region.share >= 0.01]
    assert 1 < len(detections) == len(regions) < len(prediction.regions)
    labels = prediction.labels.numpy()
    for (box, mask, score, index, _, data), region in zip(detections, regions, strict=True):
        assert (labels[mask] == index).all()
        assert np.array_equal(mask, region.mask)
        assert score == pytest.approx(region.similarity)
        assert data["class_name"] == prediction.names[index]
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
    supervision.MaskAnnotator().annotate(prediction.image.copy(), detections)
    assert len(prediction.to_supervision(min_share=1)) == 0


def test_any_number_of_classes_can_be_drawn():
    prediction = make_prediction(torch.rand(2000, 4, 4))
    assert prediction.draw(legend=False).size == (4, 4)


def test_a_prediction_is_shown_in_one_line(prediction):
    assert repr(prediction).startswith("Prediction(64 x 48 pixels: class ")
    assert "\n" not in repr(prediction)


def test_the_overlay_has_the_classes_colors(prediction):
    plain = np.asarray(prediction.draw(opacity=1, legend=False))
    labels = prediction.labels.numpy()
    is_inside = np.zeros_like(labels, bool)
    is_inside[:-1, :-1] = (labels[:-1, :-1] == labels[1:, :-1]) & (
        labels[:-1, :-1] == labels[:-1, 1:]
    )
    assert np.array_equal(plain[is_inside], class_colors(prediction.names)[labels[is_inside]])
    untouched = np.asarray(prediction.draw(opacity=0, legend=False))
    assert np.array_equal(untouched, prediction.image)
    with pytest.raises(ValueError, match=r"opacity is 1\.5"):
        prediction.draw(opacity=1.5)


def test_background_stays_as_it_is(prediction):
    scored = prediction._scored
    with_background = Prediction(
        prediction.image,
        prediction.names,
        prediction.labels,
        prediction.best_similarity,
        prediction.shares[0].index,
        scored,
    )
    drawn = np.asarray(with_background.draw(legend=False))
    is_background = prediction.labels.numpy() == prediction.shares[0].index
    assert (drawn[is_background] == 128).all()
    assert (drawn[~is_background] != 128).any(axis=1).mean() > 0.9


def test_the_legend_leaves_the_image_as_it_is_and_counts_small_classes(prediction):
    drawn = np.asarray(prediction.draw())
    assert drawn.shape[0] > 48
    assert drawn.shape[1] >= 64
    assert np.array_equal(drawn[:48, :64], np.asarray(prediction.draw(legend=False)))
    scores = torch.zeros(4, 30, 30)
    scores[1] = 0.5
    scores[2, 0, 0] = scores[3, 9, 9] = 1
    texts = [entry.text for entry in make_prediction(scores)._legend()]
    assert texts == ["class 1 99.8%", "2 below 0.5%"]


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp"])
def test_it_is_saved_in_the_format_of_the_suffix(prediction, tmp_path, suffix):
    prediction.save(tmp_path / f"drawn{suffix}")
    with Image.open(tmp_path / f"drawn{suffix}") as saved:
        assert saved.format == {".png": "PNG", ".JPG": "JPEG", ".webp": "WEBP"}[suffix]
        assert saved.size == prediction.draw().size


def test_what_cannot_be_saved_leaves_nothing(prediction, tmp_path):
    for name in ("drawn", "drawn.txt", "drawn.psd"):
        with pytest.raises(ValueError, match="no suffix of an image"):
            prediction.save(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        prediction.save(tmp_path / "none" / "drawn.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("classes", "mode"), [(1, "P"), (255, "P"), (256, "I;16"), (700, "I;16")])
def test_labels_are_read_back_as_they_were(tmp_path, classes, mode):
    scores = torch.rand(classes, 20, 30, generator=torch.Generator().manual_seed(classes))
    scores[-1, 0, 0] = 2
    prediction = make_prediction(scores)
    prediction.save_labels(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as saved:
        assert saved.mode == mode
        assert np.array_equal(np.asarray(saved), prediction.labels.numpy())
        if mode == "P":
            shown = np.asarray(saved.convert("RGB"))
            colors = class_colors(prediction.names)
            assert np.array_equal(shown, colors[prediction.labels.numpy()])
