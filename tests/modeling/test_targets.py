import torch

from pixelclip.modeling.targets import cover_images, merge_masks


def test_equals_the_union_mask_by_mask():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(30, 6, 5, generator=generator) > 0.7
    image_index = torch.randint(0, 3, (30,), generator=generator).sort().values
    assignment = torch.randint(0, 4, (30,), generator=generator)
    expected = torch.zeros(3, 4, 6, 5, dtype=torch.bool)
    for mask, image, cluster in zip(masks, image_index, assignment, strict=True):
        expected[image, cluster] |= mask
    assert torch.equal(merge_masks(masks, image_index, assignment, 3, 4), expected)


def test_without_masks():
    none = torch.zeros(0, dtype=torch.long)
    targets = merge_masks(torch.zeros(0, 6, 5, dtype=torch.bool), none, none, 2, 4)
    assert targets.shape == (2, 4, 6, 5)
    assert targets.sum() == 0
    assert cover_images(torch.zeros(0, 6, 5, dtype=torch.bool), none, 2).sum() == 0


def test_covered_is_what_any_target_covers():
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(300, 6, 5, generator=generator) > 0.9  # 300: more than a byte counts
    image_index = torch.tensor([0] * 290 + [2] * 10)
    assignment = torch.zeros(300, dtype=torch.long)
    covered = cover_images(masks, image_index, 3)
    assert torch.equal(covered, merge_masks(masks, image_index, assignment, 3, 4).any(dim=1))
    assert covered[0].all()
    assert not covered[1].any()
