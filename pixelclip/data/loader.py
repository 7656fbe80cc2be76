"""An endless training loader whose every batch follows from a seed and a position.

The samples form one endless stream: the records in a new random order every epoch. Position p of
the stream always holds the same record with the same augmentation, whoever asks for it. Iteration
i of a run with batch size b therefore sees positions i*b to i*b + b - 1, however many processes
and workers share the work and however often the run was broken off and resumed.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from pixelclip.data.corrupt_record import BrokenRecordError
from pixelclip.data.random_state import random_state_from

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
Sample = dict[str, Any]

# So many broken records in a row are no accident: the data set or the reader is wrong.
MAX_BROKEN_IN_A_ROW = 100
_WARNINGS_SHOWN_IN_FULL = 10


class SampleStream(Dataset[Sample]):
    """The endless stream of samples, addressed by position.

    Args:
        records: the data set's records.
        map_record: makes a sample out of a record, or raises :class:`BrokenRecordError`.
        seed: chooses the order and all augmentations.
    """

    def __init__(
        self, records: Sequence[Record], map_record: Callable[[Record], Sample], seed: int
    ) -> None:
        self.records = records
        self.map_record = map_record
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.uint32)

    def __getitem__(self, position: int) -> Sample:
        """The sample at a position, with ``skipped_records``: (kind, reason) of those before it.

        A broken record is replaced by another one, chosen by the position alone.

        Raises:
            RuntimeError: ``MAX_BROKEN_IN_A_ROW`` records were broken.
        """
        skipped: list[tuple[str, str]] = []
        for attempt in range(MAX_BROKEN_IN_A_ROW):
            record = self.records[self._record_index(position, attempt)]
            with random_state_from(self.seed, position, attempt):
                try:
                    return {**self.map_record(record), "skipped_records": skipped}
                except BrokenRecordError as error:
                    skipped.append((error.kind, str(error)))
        raise RuntimeError(
            f"{len(skipped)} records in a row are broken; the training data is not usable. The "
            f"last one: {skipped[-1][1]}"
        )

    def _record_index(self, position: int, attempt: int) -> int:
        size = len(self.records)
        if attempt:
            return int(np.random.default_rng((self.seed, position, attempt)).integers(size))
        epoch, place = divmod(position, size)
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(size)
            self._epoch, self._order = epoch, order.astype(np.uint32)
        return int(self._order[place])


class PositionSampler(Sampler[int]):
    """This process's share of the stream's positions: every ``step``-th from ``start`` on."""

    def __init__(self, start: int, step: int) -> None:
        self.start = start
        self.step = step

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start, self.step)


class ResumableLoader:
    """Endless batches (lists of samples) of this process, which can be continued from a checkpoint.

    Nothing is read before the first batch is asked for.

    Args:
        records: the data set's records, at least one.
        map_record: makes a sample out of a record, or raises :class:`BrokenRecordError`.
        total_batch_size: samples per iteration over all processes.
        seed: chooses the order and all augmentations; the same in every process.
        num_workers: loading processes; 0 loads in this one.
        pin_memory: put the samples where a CUDA device can copy them from while it computes.

    Attributes:
        position: of the next batch's first sample in the stream.
        skipped: number of broken records that this process has met, by kind.

    Raises:
        ValueError: no records, or a batch size that the processes cannot share evenly.
    """

    def __init__(
        self,
        records: Sequence[Record],
        map_record: Callable[[Record], Sample],
        *,
        total_batch_size: int,
        seed: int,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        processes = comm.get_world_size()
        if not len(records):
            raise ValueError("The training data set has no records: check DATASETS.TRAIN.")
        if total_batch_size < 1 or total_batch_size % processes:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH is {total_batch_size}; it must be a positive multiple of "
                f"the number of processes, {processes}."
            )
        self.stream = SampleStream(records, map_record, seed)
        self.total_batch_size = total_batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.position = 0
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[list[Sample]]:
        with _opencv_in_one_thread():
            batches = iter(self._build_loader())  # starts the loading processes
        for batch in batches:
            # Before the hand-over: a checkpoint taken after the step must not repeat the batch.
            self.position += self.total_batch_size
            for sample in batch:
                self._report(sample.pop("skipped_records"))
            yield batch

    def state_dict(self) -> dict[str, int]:
        """What :meth:`load_state_dict` needs to continue: seed, position and number of records."""
        return {
            "seed": self.stream.seed,
            "position": self.position,
            "num_records": len(self.stream.records),
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where the loader of ``state`` was; call it before the first batch."""
        if state["num_records"] != len(self.stream.records):
            logger.warning(
                "The training data had %d records when the checkpoint was written and has %d now; "
                "the order of the samples differs from here on.",
                state["num_records"],
                len(self.stream.records),
            )
        self.stream.seed = state["seed"]
        self.position = state["position"]

    def _build_loader(self) -> DataLoader[Sample]:
        processes = comm.get_world_size()
        sampler = PositionSampler(self.position + comm.get_rank(), processes)
        batch_size = self.total_batch_size // processes
        return DataLoader(
            self.stream,
            batch_sampler=BatchSampler(sampler, batch_size, drop_last=True),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            pin_memory=self.pin_memory,
            worker_init_fn=_compute_in_one_thread,
            # By default the loader draws from torch's own generator when it starts, which would
            # shift the model's random numbers in the first iteration after a resume.
            generator=torch.Generator(),
        )

    def _report(self, skipped: Sequence[tuple[str, str]]) -> None:
        for kind, reason in skipped:
            self.skipped[kind] += 1
            total = sum(self.skipped.values())
            if total <= _WARNINGS_SHOWN_IN_FULL:
                logger.warning("Skipped broken record %d: %s", total, reason)
            if total == _WARNINGS_SHOWN_IN_FULL:
                logger.warning("Further broken records of this process are only counted.")


@contextmanager
def _opencv_in_one_thread() -> Iterator[None]:
    """Stop OpenCV's threads inside the block.

    A forked process inherits locks that they hold, but not the threads, and would wait for ever.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _compute_in_one_thread(_worker: int) -> None:
    """Keep OpenCV, as torch does by itself, from one thread per core in each loading process."""
    cv2.setNumThreads(1)
