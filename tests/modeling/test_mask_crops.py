"""A crop shows its mask, sharp and whole, in a square of the image; the rest is blurred."""

import pytest
import torch
from torch.nn import functional as F

from pixelclip.modeling import mask_crops
from pixelclip.modeling.mask_crops import MaskCrops, build_mask_crops
from tests.conftest import make_tiny_config


class Recorder(torch.nn.Module):
    """Keeps the crops that it is asked to embed; the embedding is their mean color."""

    image_size = (16, 16)

    def forward(self, crops):
        self.crops = crops
        return crops.mean(dim=(2, 3))


def make_crops(**settings):
    crops = MaskCrops("none", "", **settings)
    crops.__dict__["encoder"] = Recorder()
    return crops


def rectangle(top, bottom, left, right, size=32):
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def embed(crops, images, masks, image_index, max_per_image=None):
    return crops(images, torch.stack(masks), torch.tensor(image_index), max_per_image)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 48)])
@pytest.mark.parametrize(
    "bounds", [(8, 16, 8, 16), (0, 6, 26, 32), (0, 32, 0, 32), (4, 28, 10, 14)]
)
def test_a_crop_holds_its_mask_and_blurs_the_rest(size, bounds):
    """In an image that is white where the mask is, a crop is white there and dark elsewhere."""
    mask = rectangle(*bounds)
    image = F.interpolate(mask[None, None].float(), size, mode="nearest")[0].expand(3, -1, -1)
    crops = make_crops(blur=0.05)
    crops(images=[image], masks=mask[None], image_index=torch.zeros(1, dtype=torch.int64))
    (crop,) = crops.encoder.crops
    shares = [(bounds[1] - bounds[0]) / 32 * size[0], (bounds[3] - bounds[2]) / 32 * size[1]]
    side = min(max(12, 1.2 * max(shares)), *size)
    visible = min(shares[0], side) * min(shares[1], side) / side**2
    assert crop.clamp(0, 1).mean().item() == pytest.approx(visible, abs=0.15)
    assert crop.max() > 0.9


def test_what_the_mask_leaves_out_is_blurred():
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    crops = make_crops(padding=4.0, blur=0.4)
    embed(crops, [noise], [rectangle(12, 20, 12, 20)], [0])
    (crop,) = crops.encoder.crops  # the whole image
    inside, outside = crop[:, 7:9, 7:9], crop[:, :4]
    assert inside.std() > 2 * outside.std()


def test_small_masks_have_no_crop():
    masks = [rectangle(0, 3, 0, 3), rectangle(0, 4, 0, 4), rectangle(0, 32, 0, 32)]
    crops = make_crops(min_area=0.015)
    image = torch.rand(3, 40, 40)
    found = embed(crops, [image], masks, [0, 0, 0])
    assert found.mask_index.tolist() == [1, 2]
    assert found.embeddings.shape == (2, 3)
    assert embed(crops, [image], masks[:1], [0]).mask_index.tolist() == []
    empty = crops([image], torch.zeros(0, 32, 32, dtype=torch.bool), torch.zeros(0).long())
    assert len(empty.embeddings) == 0


def test_random_masks_of_an_image_with_many_get_a_crop_whatever_the_batch():
    masks = [rectangle(row, row + 6, 4, 14) for row in range(20)]
    images = [torch.rand(3, 32, 32) for _ in range(2)]
    crops = make_crops()
    assert len(embed(crops, images[:1], masks, [0] * 20).mask_index) == 20
    alone = embed(crops, images[:1], masks, [0] * 20, 5).mask_index
    assert len(alone) == 5
    assert alone.tolist() != [0, 1, 2, 3, 4]
    others = [rectangle(4, 14, row, row + 6) for row in range(3)]
    together = embed(crops, images, others + masks, [0] * 3 + [1] * 20, 5).mask_index
    assert together.tolist() == [0, 1, 2, *(alone + 3).tolist()]


def test_many_crops_are_embedded_a_part_at_a_time(monkeypatch):
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = [rectangle(row, row + 6, 4, 14) for row in range(20)]
    together = embed(make_crops(), [image], masks, [0] * 20)
    monkeypatch.setattr(mask_crops, "_CROPS_AT_A_TIME", 3)
    crops = make_crops()
    assert torch.equal(embed(crops, [image], masks, [0] * 20).embeddings, together.embeddings)
    assert len(crops.encoder.crops) == 2, "the last part"


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_clip_embeds_crops_as_whole_images(kind, request):
    architecture = request.getfixturevalue(f"tiny_{kind}_json")
    crops = MaskCrops(architecture, "")
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = embed(crops, [image], [rectangle(0, 32, 0, 32)], [0])
    assert found.embeddings.shape == (1, 24)
    torch.testing.assert_close(found.embeddings, crops.encoder(image[None]), atol=1e-5, rtol=1e-4)
    assert not any(p.requires_grad for p in crops.encoder.parameters())
    none = embed(crops, [image], [rectangle(0, 1, 0, 1)], [0])
    assert (none.embeddings.shape, len(none.mask_index)) == ((0, 24), 0)
    again = MaskCrops(architecture, "").encoder.state_dict()
    assert all(torch.equal(v, again[n]) for n, v in crops.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("key", "value"),
    [("PADDING", 0.5), ("BLUR", 0.0), ("BLUR", 1.0), ("MIN_AREA", 1.0)],
)
def test_values_that_make_no_sense_are_refused(key, value, tiny_vit_json):
    cfg = make_tiny_config(tiny_vit_json)
    cfg.MODEL.PIXELCLIP.CROPS[key] = value
    with pytest.raises(ValueError, match=key):
        build_mask_crops(cfg)
