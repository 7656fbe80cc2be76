"""Batches of test images, each process its share of a data set."""

import functools
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
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Load a registered data set once, in its order, in lists of samples.

    It is Detectron2's ``build_detection_test_loader``, which takes one image at a time in version
    0.5. The last batch of a process may be smaller. With ``pin_memory``, samples lie where a CUDA
    device can copy them from while it computes.

    Raises:
        ValueError: a batch size below 1; during reading: a corrupt image or label, which it names.
            It is not skipped, because results on fewer images would be those of another data set.
    """
    if batch_size < 1:
        raise ValueError(f"TEST.IMS_PER_BATCH is {batch_size}; expected at least 1.")
    records = get_detection_dataset_dicts([dataset_name], filter_empty=False)
    named_mapper = functools.partial(_name_the_file, mapper)
    dataset = MapDataset(DatasetFromList(records, copy=False), named_mapper)
    return DataLoader(
        dataset,
        num_workers=num_workers,
        batch_sampler=BatchSampler(InferenceSampler(len(dataset)), batch_size, drop_last=False),
        collate_fn=trivial_batch_collator,
        pin_memory=pin_memory,
    )


def _name_the_file(
    mapper: Callable[[dict[str, Any]], dict[str, Any]], record: dict[str, Any]
) -> dict[str, Any]:
    try:
        return mapper(record)
    except Exception as error:  # Pillow raises a dozen types on corrupt files, which name no file
        raise ValueError(
            f"{record['file_name']} cannot be evaluated: {error or type(error).__name__}"
        ) from error
