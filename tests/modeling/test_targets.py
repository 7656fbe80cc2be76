import pytest
import torch
from detectron2.structures import BitMasks, Instances
from torch.nn import functional as F

from pixelclip.data.masks import pack_sample
from pixelclip.modeling.targets import gather_training_masks, merge_masks, union_of_masks


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
    assert union_of_masks(torch.zeros(0, 6, 5, dtype=torch.bool), none, 2).sum() == 0


def test_union_of_masks_is_the_union_of_the_targets():
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(300, 6, 5, generator=generator) > 0.9  # 300: more than a byte counts
    image_index = torch.tensor([0] * 290 + [2] * 10)
    assignment = torch.zeros(300, dtype=torch.long)
    valid_mask = union_of_masks(masks, image_index, 3)
    assert torch.equal(valid_mask, merge_masks(masks, image_index, assignment, 3, 4).any(dim=1))
    assert valid_mask[0].all()
    assert not valid_mask[1].any()


CPU = torch.device("cpu")


def test_masks_and_instances_of_one_batch_are_joined_in_order():
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(3, 8, 10, generator=generator) > 0.5
    large = torch.rand(2, 20, 31, generator=generator) > 0.5
    batch = [
        {"masks": small},
        {"masks": small[:0]},
        {"instances": Instances((20, 31), gt_masks=BitMasks(large))},
    ]
    masks, image_index = gather_training_masks(batch, (8, 10), CPU)
    expected = F.interpolate(large[:, None].float(), (8, 10), mode="nearest")[:, 0].bool()
    assert torch.equal(masks, torch.cat([small, expected]))
    assert image_index.tolist() == [0, 0, 0, 2, 2]


def test_specks_are_dropped_with_their_index():
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[0, 1, 1] = True  # one pixel
    masks[1, 2, 2:4] = True
    masks[3] = True
    kept, image_index = gather_training_masks(
        [{"masks": masks[:2]}, {"masks": masks[2:]}], (8, 8), CPU
    )
    assert torch.equal(kept, masks[[1, 3]])
    assert image_index.tolist() == [0, 1]


def test_nothing_at_all():
    none = torch.zeros(0, 8, 8, dtype=torch.bool)
    masks, image_index = gather_training_masks([{"masks": none}] * 2, (8, 8), CPU)
    assert masks.shape == (0, 8, 8)
    assert image_index.shape == (0,)


def test_packed_masks_give_the_same():
    generator = torch.Generator().manual_seed(0)
    batch = [{"masks": torch.rand(n, 6, 11, generator=generator) > 0.98} for n in (9, 0, 5)]
    expected = gather_training_masks(batch, (6, 11), CPU)
    packed = gather_training_masks([pack_sample(sample) for sample in batch], (6, 11), CPU)
    assert 0 < len(expected[0]) < 14  # some are specks
    assert all(torch.equal(*pair) for pair in zip(packed, expected, strict=True))


@pytest.mark.parametrize("size", [(6, 16), (5, 11), (11,)])
def test_masks_of_another_size_are_refused_packed_or_not(size):
    sample = {"masks": torch.ones(2, *size, dtype=torch.bool)}
    for inputs in (sample, pack_sample(sample) if len(size) == 2 else sample):
        with pytest.raises(ValueError, match=r"expected N masks of \(6, 24\)"):
            gather_training_masks([inputs], (6, 24), CPU)
