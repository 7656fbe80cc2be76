"""The published mIoU of each configuration, to stand beside one's own."""

from collections.abc import Mapping

_BENCHMARKS = (
    "coco_2017_test_stuff_all_sem_seg",
    "ade20k_150_test_sem_seg",
    "context_59_test_sem_seg",
    "cityscapes_fine_sem_seg_val",
    "voc_2012_test_sem_seg",
)
_ROWS = {
    "ViT-B/16 SA-1B": (23.6, 18.7, 37.9, 27.2, 85.9),
    "ViT-B/16 DINO": (22.2, 17.4, 34.3, 22.9, 83.8),
    "ConvNeXt-B SA-1B": (21.4, 20.3, 35.4, 34.8, 67.2),
    "ConvNeXt-B DINO": (20.2, 19.4, 32.7, 30.0, 62.9),
}


def get_published_row(name: str) -> Mapping[str, float]:
    """Published mIoU in percent by data set, of one row of the paper's main table.

    Args:
        name: image encoder and mask source, such as "ViT-B/16 SA-1B"; "" for no row.

    Raises:
        ValueError: an unknown name; the text lists the known ones.
    """
    if not name:
        return {}
    if name not in _ROWS:
        raise ValueError(
            f"TEST.PUBLISHED_ROW is {name!r}; it must be one of {', '.join(_ROWS)}, or '' for none."
        )
    return dict(zip(_BENCHMARKS, _ROWS[name], strict=True))
