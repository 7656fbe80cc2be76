import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from pixelclip.data.nearest_sampling import follow_transforms, pillow_nearest, torch_nearest


@pytest.mark.parametrize("seed", range(40))
def test_pillow_index_is_that_of_a_resized_image(seed: int) -> None:
    height, width, new_height, new_width = np.random.default_rng(seed).integers(1, 700, 4).tolist()
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    resize = T.ResizeTransform(height, width, new_height, new_width)
    expected = resize.apply_segmentation(image)
    rows, columns = pillow_nearest(height, new_height), pillow_nearest(width, new_width)
    np.testing.assert_array_equal(image[rows][:, columns], expected)


@pytest.mark.parametrize("seed", range(40))
def test_torch_index_is_that_of_interpolate(seed: int) -> None:
    height, width, new_height, new_width = np.random.default_rng(seed).integers(1, 700, 4).tolist()
    image = torch.randint(0, 256, (1, 1, height, width), generator=torch.manual_seed(seed))
    rows, columns = torch_nearest(height, new_height), torch_nearest(width, new_width)
    for dtype in (torch.uint8, torch.float32):
        resized = F.interpolate(image.to(dtype), (new_height, new_width), mode="nearest")
        assert torch.equal(image[0, 0][rows][:, columns].to(dtype), resized[0, 0])


@pytest.mark.parametrize("flip", [T.HFlipTransform(45), T.VFlipTransform(32), T.NoOpTransform()])
def test_following_equals_transforming(flip: T.Transform) -> None:
    transforms = T.TransformList(
        [
            T.ResizeTransform(57, 83, 91, 60),
            T.CropTransform(7, 20, 45, 32),
            ColorAugSSDTransform("RGB"),
            flip,
        ]
    )
    mask = np.random.default_rng(0).integers(0, 2, (57, 83), dtype=np.uint8)
    source = follow_transforms(transforms, 57, 83)
    expected = transforms.apply_segmentation(mask)
    np.testing.assert_array_equal(mask[source.rows][:, source.columns], expected)


def test_unknown_transforms_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="RotationTransform"):
        follow_transforms(T.TransformList([T.RotationTransform(8, 8, 30)]), 8, 8)
