import dataclasses
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pixelclip import PixelCLIP, Predictor
from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.checkpoint.saved_config import dump_config
from pixelclip.data.sa1b_files import FoundMask
from pixelclip.engine.setup import load_config
from pixelclip.mask_generation.superpixels import SuperpixelGenerator
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.inference_masks import (
    MASK_GENERATORS,
    CropScores,
    GeneratedMasks,
    build_inference_masks,
    take_given_masks,
)
from tests.mask_generation.drawings import draw_regions

CPU = torch.device("cpu")


@pytest.fixture
def image():
    return torch.from_numpy(draw_regions(48, 64)[0]).permute(2, 0, 1)


def build(config, masks="superpixels"):
    config.MODEL.PIXELCLIP.TEST_MASKS = masks
    torch.manual_seed(0)
    model = PixelCLIP(config).eval()
    model.set_vocabulary(["sky", "sea", "sand", "ball"])
    return model


def test_generated_masks_own_the_pixels_of_the_smallest(image):
    smoothing = GeneratedMasks(SuperpixelGenerator(), (32, 32))({"image": image}, CPU)
    found = list(SuperpixelGenerator().generate(image.permute(1, 2, 0).numpy()))
    assert smoothing.masks.shape == (len(found), 32, 32)
    assert smoothing.masks.any(dim=2).any(dim=1).all()
    areas = np.array([one.mask.sum() for one in found])
    for row, column in [(3, 4), (40, 20), (30, 48), (20, 16)]:
        having = [index for index, one in enumerate(found) if one.mask[row, column]]
        assert smoothing.index_map[row, column] == having[areas[having].argmin()]


def test_a_pixel_takes_the_mean_of_all_masks_that_have_it(image):
    masks = GeneratedMasks(SuperpixelGenerator(), (32, 32), averages=True)({"image": image}, CPU)
    found = list(SuperpixelGenerator().generate(image.permute(1, 2, 0).numpy()))
    pooled = torch.rand(len(found), 5, generator=torch.Generator().manual_seed(0))
    pieces = masks.score_pieces(pooled)
    for row, column in [(3, 4), (40, 20), (30, 48), (20, 16)]:
        having = [index for index, one in enumerate(found) if one.mask[row, column]]
        scores = pieces[masks.index_map[row, column]]
        torch.testing.assert_close(scores, pooled[having].mean(dim=0))
    assert (masks.membership.sum(dim=1) > 1).any()


def test_crop_scores_weigh_as_they_are_told():
    pooled, crops = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[7.0, 1.0]])
    mixed = CropScores(crops, torch.tensor([1]), weight=0.5).mix_into(pooled)
    expected = torch.tensor([[1.0, 2.0], [(3 + 3.5) / 1.5, (4 + 0.5) / 1.5]])
    torch.testing.assert_close(mixed, expected)
    none = CropScores(crops[:0], torch.zeros(0).long(), weight=0.5)
    assert torch.equal(none.mix_into(pooled), pooled)


@pytest.mark.parametrize("training", ["pooled", "pooled_and_crop"])
def test_masks_are_scored_by_their_crops_too(tiny_config, image, training, caplog):
    tiny_config.MODEL.PIXELCLIP.MASK_FEATURES = training
    plain = build(tiny_config)
    tiny_config.MODEL.PIXELCLIP.TEST_MASK_FEATURES = "pooled_and_crop"
    tiny_config.MODEL.PIXELCLIP.TEST_MASK_OVERLAP = "mean"
    tiny_config.MODEL.PIXELCLIP.TEST_CROP_WEIGHT = 3.0
    model = build(tiny_config)
    assert model.state_dict().keys() == plain.state_dict().keys()
    inputs = [{"image": image, "height": 96, "width": 128}]
    scored = model.score_images(inputs)[0]
    assert scored.masks.membership.sum(dim=1).max() > 1
    crops = model.inference_views.crop_scorer.crops
    mask = scored.masks.masks[scored.masks.crops.mask_index[:1]]
    normalized = (image - model.pixel_mean) / model.pixel_std
    embedding = F.normalize(crops([normalized], mask, torch.zeros(1).long()).embeddings, dim=-1)
    has_mean = training == "pooled_and_crop"
    assert ("have no mean crop" in caplog.text) == has_mean, "the model is untrained"
    if has_mean:
        model.mask_features.mean_crop.fill_(0.1)
        scored = model.score_images(inputs)[0]
        embedding = embedding - 0.1
    expected = F.normalize(embedding, dim=-1) @ model.text_classifier.features.T
    torch.testing.assert_close(scored.masks.crops.scores[:1], expected, atol=1e-5, rtol=1e-4)
    labels = model.segment_labels(inputs)[0]
    assert torch.equal(labels, model(inputs)[0]["sem_seg"].argmax(dim=0).to(torch.uint8))
    assert not torch.equal(labels, plain.segment_labels(inputs)[0])


def test_an_image_without_large_masks_has_no_crops(tiny_config, image):
    tiny_config.MODEL.PIXELCLIP.TEST_MASK_FEATURES = "pooled_and_crop"
    model = build(tiny_config, "given")
    plain = dataclasses.replace(model.inference_views, crop_scorer=None)
    nowhere, small = torch.full((48, 64), -1), torch.zeros(1, 32, 32, dtype=torch.bool)
    small[0, :2, :2] = True
    for masks in (small[:0], small):
        inputs = [{"image": image, "masks": masks, "mask_index_map": nowhere}]
        scores = model(inputs)[0]["sem_seg"]
        views, model.inference_views = model.inference_views, plain
        assert torch.equal(scores, model(inputs)[0]["sem_seg"])
        model.inference_views = views


def test_the_predictor_sees_crops_with_the_original_clip(tmp_path):
    overrides = ["MODEL.PIXELCLIP.TEST_MASK_FEATURES", "pooled_and_crop"]
    overrides += ["MODEL.PIXELCLIP.TEST_MASKS", "superpixels"]
    cfg = load_config("configs/demo/toy_plus.yaml", overrides)
    model = PixelCLIP(cfg)
    checkpointer = PixelCLIPCheckpointer(model, str(tmp_path), config=dump_config(cfg))
    checkpointer.save("model")
    predictor = Predictor.from_pretrained(str(tmp_path / "model.pth"))
    crops = predictor.model.inference_views.crop_scorer.crops
    pretrained = load_clip("toy", "captions").visual.state_dict()
    assert all(torch.equal(v, pretrained[n]) for n, v in crops.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TEST_MASK_FEATURES", "crop", "one of pooled, pooled_and_crop"),
        ("TEST_MASK_OVERLAP", "largest", "one of smallest, mean"),
        ("TEST_CROP_WEIGHT", 0.0, "expected a positive number"),
        ("TEST_MASK_FEATURES", "pooled_and_crop", "PRETRAINED is empty.*Name them"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny_config, key, value, message):
    tiny_config.MODEL.PIXELCLIP[key] = value
    tiny_config.MODEL.WEIGHTS = "weights.pth"
    with pytest.raises(ValueError, match=message):
        build(tiny_config)


def test_labels_follow_the_masks_in_every_way_to_ask(tiny_config, image):
    smoothed, plain = build(tiny_config), build(tiny_config, "none")
    inputs = [{"image": image, "height": 96, "width": 128}]
    labels = smoothed.segment_labels(inputs)[0]
    assert torch.equal(labels, smoothed(inputs)[0]["sem_seg"].argmax(dim=0).to(torch.uint8))
    assert not torch.equal(labels, plain.segment_labels(inputs)[0])
    _, true = draw_regions(96, 128)
    box = labels[torch.from_numpy(true[3])]
    assert (box == box.mode().values).float().mean() > 0.95, "one mask, one class"


def test_the_predictor_has_them_too(tiny_config, image):
    model = build(tiny_config)
    prediction = Predictor(model, min_size=0)(image, list(model.class_names))
    expected = model.segment_labels([{"image": image}])[0]
    assert torch.equal(torch.as_tensor(prediction.labels), expected.long())
    plain = Predictor(build(tiny_config, "none"), min_size=0)(image, list(model.class_names))
    assert not torch.equal(torch.as_tensor(plain.labels), expected.long())


def test_without_masks_nothing_is_generated(tiny_config, image, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(SuperpixelGenerator, "load", refuse)
    model = build(tiny_config, "none")
    assert model.inference_views.masks is None
    assert model.score_images([{"image": image}])[0].masks is None


def test_a_generators_network_is_not_part_of_the_model(tiny_config):
    model = build(tiny_config, "dino")
    assert model.state_dict().keys() == build(tiny_config, "none").state_dict().keys()
    assert isinstance(pickle.loads(pickle.dumps(model)).inference_views.masks, GeneratedMasks)


def test_floating_point_images_of_any_range_are_taken_as_8_bit(image, monkeypatch):
    seen = []
    monkeypatch.setattr(
        SuperpixelGenerator,
        "generate",
        lambda _, pixels: seen.append(pixels) or iter([FoundMask(np.ones(pixels.shape[:2], bool))]),
    )
    masks = GeneratedMasks(SuperpixelGenerator(), (8, 8))
    masks({"image": image.float() + 0.3}, CPU)
    masks({"image": torch.full((3, 5, 4), 300.0)}, CPU)
    assert np.array_equal(seen[0], image.permute(1, 2, 0).numpy())
    assert seen[1].dtype == np.uint8
    assert (seen[1] == 255).all()


def test_no_mask_found_leaves_the_labels(tiny_config, image, monkeypatch):
    monkeypatch.setattr(SuperpixelGenerator, "generate", lambda *_: iter(()))
    inputs = [{"image": image}]
    smoothed = build(tiny_config).segment_labels(inputs)[0]
    assert torch.equal(smoothed, build(tiny_config, "none").segment_labels(inputs)[0])


def test_given_masks_must_be_there(tiny_config, image):
    model = build(tiny_config, "given")
    masks = torch.ones(1, 32, 32, dtype=torch.bool)
    index_map = torch.zeros(48, 64, dtype=torch.int64)
    inputs = {"image": image, "masks": masks, "mask_index_map": index_map}
    labels = model.segment_labels([inputs])[0]
    assert len(labels.unique()) == 1
    with pytest.raises(ValueError, match="without masks and mask_index_map; give them"):
        model.segment_labels([{"image": image}])
    with pytest.raises(ValueError, match="without mask_index_map"):
        take_given_masks({"masks": masks}, CPU)


@pytest.mark.parametrize("name", ["none", "given", *MASK_GENERATORS])
def test_every_choice_can_be_configured(tiny_config, name):
    tiny_config.MODEL.PIXELCLIP.TEST_MASKS = name
    assert (build_inference_masks(tiny_config) is None) == (name == "none")


def test_unknown_choices_are_refused(tiny_config):
    with pytest.raises(ValueError, match="TEST_MASKS is 'sma'; it must be one of none, given"):
        build(tiny_config, "sma")
    tiny_config.MODEL.PIXELCLIP.TEST_MASK_MODEL = "facebook/sam-vit-base"
    with pytest.raises(ValueError, match="superpixels need no model"):
        build(tiny_config, "superpixels")
