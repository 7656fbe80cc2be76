"""Batches of test images, each process its share of a data set."""

from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetFromList, MapDataset, get_detection_dataset_dicts
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from torch.utils.data import BatchSampler, DataLoader


def build_evaluation_loader(
    dataset_name: str,
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
    batch_size: int,
    num_workers: int,
) -> DataLoader[Any]:
    """Load a registered data set once, in its order, in lists of samples.

    It is Detectron2's ``build_detection_test_loader``, which takes one image at a time in version
    0.5. The last batch of a process may be smaller.

    Raises:
        ValueError: a batch size below 1; while it is read: a broken image or label, which it names.
            It is not skipped, because figures on fewer images would be those of another data set.
    """
    if batch_size < 1:
        raise ValueError(f"TEST.IMS_PER_BATCH is {batch_size}; expected at least 1.")
    records = get_detection_dataset_dicts([dataset_name], filter_empty=False)
    dataset = MapDataset(DatasetFromList(records, copy=False), _NamingTheFile(mapper))
    return DataLoader(
        dataset,
        num_workers=num_workers,
        batch_sampler=BatchSampler(InferenceSampler(len(dataset)), batch_size, drop_last=False),
        collate_fn=trivial_batch_collator,
    )


class _NamingTheFile:
    """A mapper whose errors say which record they are about; Pillow's do not."""

    def __init__(self, mapper: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._mapper = mapper

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._mapper(record)
        except Exception as error:  # Pillow raises a dozen types on broken files
            raise ValueError(
                f"{record['file_name']} cannot be evaluated: {error or type(error).__name__}"
            ) from error
