import torch

from pixelclip.modeling.target_merging import merge_masks


def test_equals_the_union_mask_by_mask():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(30, 6, 5, generator=generator) > 0.7
    image_index = torch.randint(0, 3, (30,), generator=generator).sort().values
    assignment = torch.randint(0, 4, (30,), generator=generator)
    expected = torch.zeros(3, 4, 6, 5, dtype=torch.bool)
    for mask, image, cluster in zip(masks, image_index, assignment, strict=True):
        expected[image, cluster] |= mask
    assert torch.equal(merge_masks(masks, image_index, assignment, 3, 4), expected.float())


def test_without_masks():
    none = torch.zeros(0, dtype=torch.long)
    targets = merge_masks(torch.zeros(0, 6, 5, dtype=torch.bool), none, none, 2, 4)
    assert targets.shape == (2, 4, 6, 5)
    assert targets.sum() == 0
