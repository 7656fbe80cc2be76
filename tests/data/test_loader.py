import itertools
import os
import random
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.utils import comm

from pixelclip.data.loader import ResumableLoader, SampleStream, random_state_from
from pixelclip.data.sa1b import SA1BRecords, _Source
from pixelclip.data.sa1b_files import CorruptRecordError
from pixelclip.data.sa1b_index import Pair, pack_pairs

RECORDS = [{"id": index} for index in range(10)]


def with_random_number(record):
    return {"id": record["id"], "draw": random.random()}


def corrupt_if_odd(record):
    if record["id"] % 2:
        raise CorruptRecordError(f"record {record['id']} is odd")
    return dict(record)


def take(loader, count):
    return [[dict(x) for x in batch] for batch in itertools.islice(iter(loader), count)]


def make_loader(map_record=with_random_number, records=RECORDS, **settings):
    return ResumableLoader(records, map_record, **{"total_batch_size": 4, "seed": 5, **settings})


def test_every_epoch_is_a_new_permutation():
    stream = SampleStream(RECORDS, with_random_number, seed=3)
    epochs = [[stream[10 * e + i]["id"] for i in range(10)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_workers_do_not_change_the_samples():
    assert take(make_loader(num_workers=2), 6) == take(make_loader(), 6)


def test_another_seed_gives_other_samples():
    assert take(make_loader(seed=6), 3) != take(make_loader(), 3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_continues_exactly_where_it_stopped(num_workers):
    whole = take(make_loader(), 8)
    first = make_loader(num_workers=num_workers)
    assert take(first, 3) == whole[:3]
    second = make_loader(num_workers=num_workers, seed=99)
    second.load_state_dict(first.state_dict())
    assert take(second, 5) == whole[3:]


def test_processes_share_the_same_batches(monkeypatch):
    whole = take(make_loader(), 4)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(take(make_loader(), 4))
    for batch, one, two in zip(whole, *shares, strict=True):
        key = lambda sample: sample["draw"]  # noqa: E731
        assert sorted(one + two, key=key) == sorted(batch, key=key)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_corrupt_records_are_replaced_counted_and_reported(num_workers, caplog):
    loader = make_loader(corrupt_if_odd, num_workers=num_workers)
    batches = take(loader, 10)
    assert all(sample["id"] % 2 == 0 for batch in batches for sample in batch)
    # Half of four epochs, and replacements that were odd as well.
    assert loader.skipped["file"] >= 20
    assert "Skipped corrupt record 1: record" in caplog.text
    assert caplog.text.count("Skipped corrupt record") == 10
    again = make_loader(corrupt_if_odd)
    assert take(again, 10) == batches
    assert again.skipped == loader.skipped


def test_nothing_but_corrupt_records_stops_with_the_reason():
    def always_corrupt(_record):
        raise CorruptRecordError("the disk is empty")

    with pytest.raises(RuntimeError, match="the disk is empty"):
        take(make_loader(always_corrupt), 1)


def test_changed_data_is_said_when_resuming(caplog):
    loader = make_loader(records=RECORDS[:7])
    loader.load_state_dict(make_loader().state_dict())
    assert "had 10 records" in caplog.text


def test_reading_starts_with_the_first_batch_only():
    loader = make_loader(lambda _record: pytest.fail("read too early"))
    iter(loader)


@pytest.mark.parametrize("size", [0, -2, 3])
def test_batch_size_that_cannot_be_shared_is_refused(size, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match=rf"IMS_PER_BATCH is {size}"):
        make_loader(total_batch_size=size)


def test_empty_data_set_is_refused():
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN"):
        make_loader(records=[])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_leaves_the_model_its_random_numbers(num_workers):
    """The first iteration after a resume starts a loader; the others do not."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    take(make_loader(num_workers=num_workers), 1)
    assert torch.equal(torch.rand(3), expected)


def test_loading_processes_compute_in_one_thread_each():
    loader = make_loader(lambda record: {"threads": cv2.getNumThreads()}, num_workers=1)
    assert {sample["threads"] for batch in take(loader, 2) for sample in batch} == {1}


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="not on macOS")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_loading_processes_survive_signals_to_all_processes(number):
    def signal_itself(record):
        os.kill(os.getpid(), number)
        return {"pid": os.getpid()}

    batches = take(make_loader(signal_itself, num_workers=1), 3)
    assert len({sample["pid"] for batch in batches for sample in batch}) == 1


def test_loading_processes_start_next_to_opencvs_threads():
    """With these running, a forked process that sets their number used to wait indefinitely."""
    image = np.zeros((700, 700, 3), np.uint8)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        for _ in range(4):
            cv2.GaussianBlur(image, (0, 0), 2.0)
            assert len(take(make_loader(num_workers=2), 2)) == 2
            assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


def test_samples_are_pinned_where_asked_and_their_masks_packed():
    sample = {"masks": torch.ones(2, 3, 8, dtype=torch.bool)}
    loader = make_loader(pin_memory=True)._build_loader()
    assert loader.pin_memory
    assert loader.collate_fn([sample])[0]["packed_masks"].shape == (2, 3, 1)
    loader = make_loader()._build_loader()
    assert not loader.pin_memory
    assert loader.collate_fn([sample]) == [sample]


def sa1b_records(count):
    pairs: list[Pair] = [
        (f"sa_{i}.jpg", (4096 * i, 2000), (4096 * i + 2048, 900)) for i in range(count)
    ]
    return SA1BRecords([_Source("/data/sa.tar", "/data/sa.tar", pack_pairs(pairs), (1, 1))])


class ReportMemory:
    """Reads every field of a record; a hundred times an epoch, says how much memory is private."""

    def __init__(self, records):
        self.calls, self.period = 0, records // 100

    def __call__(self, record):
        self.calls += 1
        sample = {"characters": sum(len(str(value)) for value in record.values())}
        if self.calls % self.period == 0:
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
            private = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
            sample["private MiB"] = sum(private) / 1024
        return sample


def growth_over_an_epoch(records):
    """MiB by which a loading process grows from the first hundredth of an epoch to its end."""
    loader = ResumableLoader(
        records, ReportMemory(len(records)), total_batch_size=100, seed=0, num_workers=1
    )
    batches = itertools.islice(iter(loader), len(records) // 100)
    memory = [x["private MiB"] for batch in batches for x in batch if "private MiB" in x]
    assert len(memory) == 100
    return memory[-1] - memory[0]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_of_a_loading_process_is_flat_over_a_hundred_thousand_records():
    records = sa1b_records(100_000)
    growth = growth_over_an_epoch(records)
    of_dicts = growth_over_an_epoch([dict(record) for record in records])
    print(f"growth of a worker in MiB: {growth:.2f}; with a list of dictionaries: {of_dicts:.2f}")
    assert growth < 2
    assert of_dicts > 10


def seed_all():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_same_key_same_numbers_and_other_key_others():
    def draws(*key):
        with random_state_from(*key):
            return draw()

    assert draws(1, 2, 3) == draws(1, 2, 3)
    for other in [(1, 2, 4), (1, 2), (0, 2, 3)]:
        assert all(a != b for a, b in zip(draws(1, 2, 3), draws(*other), strict=True))


def test_generators_outside_continue_undisturbed():
    seed_all()
    expected = draw()
    seed_all()
    try:
        with random_state_from(7):
            draw()
            raise KeyError
    except KeyError:
        pass
    assert draw() == expected
