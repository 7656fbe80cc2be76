"""Pooled features as published, and their mixture with centered crop embeddings."""

import pytest
import torch
from torch.nn import functional as F

from pixelclip import PixelCLIP
from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.checkpoint.conversion import convert_checkpoint
from pixelclip.modeling.dense_paths import DENSE_PATHS
from pixelclip.modeling.mask_crops import CropEmbeddings
from pixelclip.modeling.mask_features import MaskFeatures, find_containers
from pixelclip.modeling.mask_pooling import pool_masks
from tests.conftest import make_batch


def make_inputs(count=5):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(count, 8, 8, generator=generator) > 0.5
    features = torch.randn(2, 4, 4, 6, generator=generator)
    return features, masks, torch.tensor([0] * (count - 2) + [1, 1]), [None, None]


def with_crops(embeddings, indices):
    def crops(images, masks, image_index, max_per_image=None):
        return CropEmbeddings(embeddings, torch.tensor(indices, dtype=torch.int64))

    return MaskFeatures(crops, embeddings.shape[1])


def test_pooled_features_are_the_published_ones():
    features, masks, image_index, images = make_inputs()
    found = MaskFeatures()(features, masks, image_index, images)
    assert torch.equal(found, pool_masks(features, masks, image_index))
    assert MaskFeatures().state_dict() == {}


def test_crops_are_centered_and_added():
    features, masks, image_index, images = make_inputs()
    crops = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    model = with_crops(crops, [1, 4])
    found = model(features, masks, image_index, images)
    pooled = F.normalize(pool_masks(features, masks, image_index), dim=-1)
    unit = F.normalize(crops, dim=-1)
    expected = F.normalize(pooled[[1, 4]] + unit - unit.mean(dim=0), dim=-1)
    torch.testing.assert_close(found[[1, 4]], expected)
    assert torch.equal(found[[0, 2, 3]], pooled[[0, 2, 3]])


def test_the_mean_crop_moves_slowly_and_stays_without_crops():
    features, masks, image_index, images = make_inputs()
    first, second = torch.eye(6)[:2], torch.eye(6)[2:4]
    model = with_crops(first, [0, 1])
    model(features, masks, image_index, images)
    torch.testing.assert_close(model.mean_crop, first.mean(dim=0))
    model.crops = with_crops(second, [0, 1]).crops
    model(features, masks, image_index, images)
    expected = 0.9 * first.mean(dim=0) + 0.1 * second.mean(dim=0)
    torch.testing.assert_close(model.mean_crop, expected)
    model.eval()(features, masks, image_index, images)
    torch.testing.assert_close(model.mean_crop, expected)
    model.train().crops = with_crops(torch.zeros(0, 6), []).crops
    model(features, masks, image_index, images)
    torch.testing.assert_close(model.mean_crop, expected)


@pytest.mark.parametrize("kind", ["pooled_value_path", "pooled_and_crop"])
def test_the_teacher_alone_takes_the_value_path(tiny_config, kind):
    tiny_config.MODEL.PIXELCLIP.MASK_FEATURES = kind
    model = PixelCLIP(tiny_config)
    assert model.teacher.image_encoder.dense_path is DENSE_PATHS["maskclip"]
    assert model.image_encoder.dense_path is DENSE_PATHS["pixelclip"]
    tiny_config.MODEL.PIXELCLIP.MASK_FEATURES = "pooled"
    assert PixelCLIP(tiny_config).teacher.image_encoder.dense_path is DENSE_PATHS["pixelclip"]


def test_a_convnext_has_no_value_path(tiny_convnext_json, tiny_config):
    tiny_config.MODEL.CLIP.ARCH, tiny_config.MODEL.CLIP.FINETUNE = tiny_convnext_json, "full"
    tiny_config.MODEL.PIXELCLIP.MASK_FEATURES = "pooled_value_path"
    with pytest.raises(ValueError, match="a ConvNeXt: choose 'pooled' or 'pooled_and_crop'"):
        PixelCLIP(tiny_config)
    tiny_config.MODEL.PIXELCLIP.MASK_FEATURES = "crop"
    with pytest.raises(ValueError, match="MASK_FEATURES is 'crop'"):
        PixelCLIP(tiny_config)


def test_a_model_with_crops_trains_and_its_files_fit_others(tiny_config_of_each, tmp_path):
    node = tiny_config_of_each.MODEL.PIXELCLIP
    node.MASK_FEATURES, node.QUEUE_SIZE = "pooled_and_crop", 10
    model = PixelCLIP(tiny_config_of_each).train()
    model(make_batch())["loss_masks"].backward()
    assert model.class_prompts.tokens.grad.abs().sum() > 0
    assert model.mask_features.mean_crop.any()
    assert model.mask_queue.length == 8
    PixelCLIPCheckpointer(model, str(tmp_path)).save("plus")
    restored = PixelCLIP(tiny_config_of_each)
    PixelCLIPCheckpointer(restored).load(str(tmp_path / "plus.pth"))
    assert torch.equal(restored.mask_features.mean_crop, model.mask_features.mean_crop)
    assert torch.equal(restored.mask_queue.features, model.mask_queue.features)
    node.MASK_FEATURES, node.QUEUE_SIZE = "pooled", 0
    plain = PixelCLIP(tiny_config_of_each)
    PixelCLIPCheckpointer(plain).load(str(tmp_path / "plus.pth"))
    PixelCLIPCheckpointer(plain, str(tmp_path)).save("plain")
    PixelCLIPCheckpointer(restored).load(str(tmp_path / "plain.pth"))
    mean, parts = "mask_features.mean_crop", ("mask_features.", "mask_queue.")
    for layout, kept in (("published", []), ("inference", [mean])):
        convert_checkpoint(tmp_path / "plus.pth", tmp_path / "other.pth", layout)
        PixelCLIPCheckpointer(plain.eval()).load(str(tmp_path / "other.pth"))
        stored = torch.load(tmp_path / "other.pth", weights_only=True)["model"]
        assert [name for name in stored if name.startswith(parts)] == kept
        if kept:
            assert torch.equal(stored[mean], model.mask_features.mean_crop)


@pytest.mark.parametrize("masks_per_image", [0, 3])
def test_a_batch_without_crops_trains(tiny_config, masks_per_image):
    tiny_config.MODEL.PIXELCLIP.MASK_FEATURES = "pooled_and_crop"
    model = PixelCLIP(tiny_config).train()
    batch = make_batch(masks_per_image=masks_per_image)
    for inputs in batch:
        inputs["masks"][:] = False
        inputs["masks"][:, 4:6, 4:7] = True
    model(batch)["loss_masks"].backward()
    assert not model.mask_features.mean_crop.any()


def test_an_image_must_have_a_crop(tiny_config):
    tiny_config.MODEL.PIXELCLIP.CROPS.MAX_PER_IMAGE = 0
    with pytest.raises(ValueError, match="MAX_PER_IMAGE is 0; expected at least 1"):
        PixelCLIP(tiny_config)


def squares(*bounds, size=20):
    """Masks of rows and columns top to bottom and left to right."""
    masks = torch.zeros(len(bounds), size, size, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(masks, bounds, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_a_part_has_the_smallest_whole_of_its_image():
    part, whole, larger = (2, 4, 2, 4), (1, 5, 1, 5), (0, 8, 0, 8)
    border, fills, nearly_same = (4, 6, 2, 4), (0, 20, 0, 19), (0, 8, 0, 7)
    masks = squares(larger, part, whole, fills, border, nearly_same, part, part, larger)
    image_index = torch.tensor([0, 0, 0, 0, 0, 0, 1, 3, 3])
    found = find_containers(masks, image_index).tolist()
    assert found == [-1, 2, 5, -1, 5, 0, -1, 8, -1]
    assert find_containers(masks[:0], image_index[:0]).tolist() == []


def test_a_little_less_than_enough_does_not_contain_under_autocast_either():
    masks = torch.zeros(2, 100, 100, dtype=torch.bool)
    masks.view(2, -1)[0, :1010] = True
    masks.view(2, -1)[1, 203:1403] = True  # 807 of the 1010 pixels, which 16 bits would round
    with torch.autocast("cpu", torch.bfloat16):
        assert find_containers(masks, torch.zeros(2).long()).tolist() == [-1, -1]


def test_containers_add_their_features():
    features, _, _, images = make_inputs()
    masks, image_index = squares((0, 2, 0, 2), (0, 8, 0, 8), (4, 9, 9, 14)), torch.tensor([0, 0, 1])
    own = F.normalize(pool_masks(features, masks, image_index), dim=-1)
    found = MaskFeatures(container_weight=2.0)(features, masks, image_index, images)
    torch.testing.assert_close(found, torch.stack([own[0] + 2 * own[1], own[1], own[2]]))


def test_a_containers_weight_is_not_negative(tiny_config):
    tiny_config.MODEL.PIXELCLIP.CONTAINER_WEIGHT = -1.0
    with pytest.raises(ValueError, match="CONTAINER_WEIGHT is -1.0; expected at least 0"):
        PixelCLIP(tiny_config)
