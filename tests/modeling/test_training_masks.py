import torch
from detectron2.structures import BitMasks, Instances
from torch.nn import functional as F

from pixelclip.modeling.training_masks import gather_training_masks

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
