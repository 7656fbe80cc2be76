"""An endless training loader whose every batch follows from a seed and a position.

The samples form one endless stream: the records in a new random order every epoch. Position p of
the stream always holds the same record with the same augmentation, whichever process asks for it.
Iteration i of a run with batch size b therefore sees positions i*b to i*b + b - 1. Torch's and
Detectron2's samplers do not address samples by position: with them, results would depend on the
number of GPUs and loading processes, and on where a run was interrupted and resumed.
"""

import logging
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader, Dataset

from pixelclip.data.masks import pack_sample
from pixelclip.data.sa1b_files import CorruptRecordError

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
Sample = dict[str, Any]

# This many corrupt records in a row mean that the data set or the reader is wrong.
MAX_CORRUPT_IN_A_ROW = 100
_MAX_WARNINGS = 10


@contextmanager
def random_state_from(*key: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators from non-negative integers, in the block.

    Afterwards they continue as if nothing had happened.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    seeds = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # torch.manual_seed would reseed the GPUs as well
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


class SampleStream(Dataset[Sample]):
    """The endless stream of samples, addressed by position.

    Args:
        records: the data set's records.
        map_record: makes a sample out of a record, or raises :class:`CorruptRecordError`.
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

        A corrupt record is replaced by another one, chosen by the position alone. Raises
        RuntimeError where ``MAX_CORRUPT_IN_A_ROW`` records are corrupt.
        """
        skipped: list[tuple[str, str]] = []
        for attempt in range(MAX_CORRUPT_IN_A_ROW):
            record = self.records[self._record_index(position, attempt)]
            with random_state_from(self.seed, position, attempt):
                try:
                    return {**self.map_record(record), "skipped_records": skipped}
                except CorruptRecordError as error:
                    skipped.append((error.kind, str(error)))
        problem = f"{len(skipped)} records in a row are corrupt; the training data is not usable"
        raise RuntimeError(f"{problem}. The last one: {skipped[-1][1]}")

    def _record_index(self, position: int, attempt: int) -> int:
        size = len(self.records)
        if attempt:
            return int(np.random.default_rng((self.seed, position, attempt)).integers(size))
        epoch, place = divmod(position, size)
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(size)
            self._epoch, self._order = epoch, order.astype(np.uint32)
        return int(self._order[place])


class ResumableLoader:
    """Endless batches (lists of samples) of this process, which can be continued from a checkpoint.

    Nothing is read before the first batch is asked for.

    Args:
        records, map_record, seed: see :class:`SampleStream`; the same in every process.
        total_batch_size: samples per iteration over all processes.
        num_workers: loading processes; 0 loads in this one.
        pin_memory: put the samples where a CUDA device can copy them from while it computes, and
            their masks as bits, see :func:`pack_sample`.

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
            expected = f"a positive multiple of {processes}, the number of processes"
            raise ValueError(f"SOLVER.IMS_PER_BATCH is {total_batch_size}; expected {expected}.")
        self.stream = SampleStream(records, map_record, seed)
        self.total_batch_size = total_batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.position = 0  # of the next batch's first sample in the stream
        self.skipped: Counter[str] = Counter()  # corrupt records of this process, by kind

    def __iter__(self) -> Iterator[list[Sample]]:
        # A forked process inherits locks that OpenCV's threads hold, but not the threads, and would
        # wait for them.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        batches = iter(self._build_loader())  # starts the loading processes
        cv2.setNumThreads(threads)
        for batch in batches:
            # Before the hand-over: a checkpoint taken after the step must not repeat the batch.
            self.position += self.total_batch_size
            for sample in batch:
                self._report(sample.pop("skipped_records"))
            yield batch

    def state_dict(self) -> dict[str, int]:
        """What :meth:`load_state_dict` needs to continue: seed, position and number of records."""
        num_records = len(self.stream.records)
        return {"seed": self.stream.seed, "position": self.position, "num_records": num_records}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where the loader of ``state`` was; call it before the first batch."""
        before, now = state["num_records"], len(self.stream.records)
        if before != now:
            logger.warning(
                f"The training data had {before} records when the checkpoint was written and has "
                f"{now} now; the order of the samples differs from here on."
            )
        self.stream.seed = state["seed"]
        self.position = state["position"]

    def _build_loader(self) -> DataLoader[Sample]:
        processes = comm.get_world_size()
        positions = range(self.position + comm.get_rank(), sys.maxsize, processes)
        batch_size = self.total_batch_size // processes
        return DataLoader(
            self.stream,
            batch_sampler=BatchSampler(positions, batch_size, drop_last=True),
            num_workers=self.num_workers,
            collate_fn=_pack if self.pin_memory else trivial_batch_collator,
            pin_memory=self.pin_memory,
            worker_init_fn=_set_up_loading_process,
            # By default the loader draws from torch's own generator when it starts, which would
            # shift the model's random numbers in the first iteration after a resume.
            generator=torch.Generator(),
        )

    def _report(self, skipped: Sequence[tuple[str, str]]) -> None:
        for kind, reason in skipped:
            self.skipped[kind] += 1
            total = self.skipped.total()
            if total <= _MAX_WARNINGS:
                only = " (further ones are only counted)" if total == _MAX_WARNINGS else ""
                logger.warning("Skipped corrupt record %d%s: %s", total, only, reason)


def _pack(samples: list[Sample]) -> list[Sample]:
    return [pack_sample(sample) for sample in samples]


def _set_up_loading_process(_worker: int) -> None:
    """Compute in one thread, and leave it to the training process to end this one."""
    cv2.setNumThreads(1)  # as torch does on its own: not one per core in each loading process
    # Ctrl-C and schedulers signal all processes, and the training still needs its batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_for_parent, daemon=True).start()


def _end_for_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
