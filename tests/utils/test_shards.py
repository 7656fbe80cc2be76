"""Shares of inputs are disjoint and complete, and the environment says which is a process's."""

import random
from pathlib import PurePath

import pytest

from pixelclip.utils.shards import WHOLE, Shard, WorkStatus, choose_shard, find_shard


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_each_input_is_in_one_share(count):
    inputs = [PurePath(f"{number % 3}", f"{number}.jpg") for number in range(100)]
    shards = [Shard(index, count) for index in range(count)]
    assert all(sum(shard.owns(one) for shard in shards) == 1 for one in inputs)


def test_the_owner_depends_on_the_name_alone():
    # Recorded: machines with different versions must agree.
    found = [choose_shard(PurePath("a", f"{number}.jpg"), 4) for number in range(12)]
    assert found == [1, 0, 2, 1, 3, 2, 3, 2, 2, 2, 0, 3]
    assert choose_shard(PurePath("b/\udcff.jpg"), 5) in range(5), "names need not be text"


def test_shares_are_about_equal():
    counts = [0] * 64
    for number in range(16_000):
        counts[choose_shard(PurePath(f"sa_{number}.jpg"), 64)] += 1
    # Five standard deviations of a fair choice.
    assert all(abs(count - 250) < 80 for count in counts)


def array(own, count, first, last, step=1):
    values = {"ID": own, "COUNT": count, "MIN": first, "MAX": last, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def torchrun(rank, count, local_rank, local_count):
    values = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": local_rank}
    values |= {"LOCAL_WORLD_SIZE": local_count, "TORCHELASTIC_RUN_ID": "none"}
    return {name: str(value) for name, value in values.items()}


def srun(rank, count, local_rank, node, tasks_per_node):
    values = {"PROCID": rank, "STEP_NUM_TASKS": count, "LOCALID": local_rank, "NODEID": node}
    values |= {"STEP_TASKS_PER_NODE": tasks_per_node, "NTASKS": 99}
    return {f"SLURM_{name}": str(value) for name, value in values.items()}


# A batch script and an interactive session are one process, whatever they may start.
BATCH = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, WHOLE),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, WHOLE),
        (BATCH, WHOLE),
        (torchrun(5, 8, 1, 4), Shard(5, 8, 1, 4)),
        (BATCH | torchrun(5, 8, 1, 4), Shard(5, 8, 1, 4)),
        (srun(5, 7, 1, 2, "2(x3),1"), Shard(5, 7, 1, 2)),
        (srun(6, 7, 0, 3, "2(x3),1"), Shard(6, 7, 0, 1)),
        (srun(0, 1, 0, 0, "1"), WHOLE),
        (srun(0, 1, 0, 0, "1") | torchrun(3, 4, 3, 4), Shard(3, 4, 3, 4)),
        (BATCH | array(0, 64, 0, 63), Shard(0, 64)),
        (array(64, 64, 1, 64), Shard(63, 64)),
        (array(17, 4, 5, 23, 6), Shard(2, 4)),
        (array(9, 1, 9, 9, 0), WHOLE),
        (array(2, 3, 1, 3) | srun(3, 4, 3, 0, "4"), Shard(7, 12, 3, 4)),
        (array(2, 3, 1, 3) | torchrun(0, 4, 0, 4), Shard(4, 12, 0, 4)),
    ],
)
def test_the_environment_says_which_share(environment, expected):
    assert find_shard(None, environment) == expected
    assert find_shard("3/64", environment) == Shard(2, 64)
    assert find_shard("1/1", environment) == WHOLE


@pytest.mark.parametrize(
    "groups",
    [
        [array(i, 5, 3, 11, 2) | torchrun(r, 3, r, 3) for i in range(3, 12, 2) for r in range(3)],
        [srun(r, 7, r % 2, r // 2, "2(x3),1") for r in range(7)],
    ],
)
def test_processes_that_are_started_together_have_all_shares(groups):
    shards = [find_shard(None, environment) for environment in groups]
    assert [shard.index for shard in shards] == list(range(len(groups)))
    assert {shard.count for shard in shards} == {len(groups)}


@pytest.mark.parametrize(
    "given",
    ["", "0/4", "5/4", "3", "3/", "/4", "-1/4", "1/0", "a/b", "1/4/2", " 1/4", "1.0/4", "٣/٤"],
)
def test_a_share_that_does_not_exist_is_refused(given):
    with pytest.raises(ValueError, match="expected 1/64 to 64/64"):
        find_shard(given, {})


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (array(3, 2, 3, 17), "cannot tell which"),
        (array(4, 3, 0, 9, 1), "cannot tell which"),
        (array(4, 3, 3, 7, 2), "cannot tell which"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_COUNT is ''"),
        (torchrun(4, 4, 0, 4), "process 4, from 0, of 4"),
        (torchrun("x", 4, 0, 4), "RANK is 'x'; expected a number"),
        (torchrun(0, 0, 0, 1), "process 0, from 0, of 0"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "SLURM_PROCID is ''"),
    ],
)
def test_an_environment_without_a_clear_share_is_refused(environment, problem):
    with pytest.raises(ValueError, match=problem):
        find_shard(None, environment)


@pytest.mark.parametrize(
    ("local", "gpus", "expected"),
    [
        ((0, 1), 8, [*range(8)]),
        ((3, 8), 8, [3]),
        ((1, 4), 8, [1, 5]),
        ((5, 8), 2, [1]),
        ((1, 2), 1, [0]),
    ],
)
def test_the_processes_of_a_machine_divide_its_gpus(local, gpus, expected):
    assert Shard(0, 8, *local).local_gpus(gpus) == expected


def test_a_label_names_the_shard():
    assert (WHOLE.label("masks"), Shard(2, 64).label("masks")) == ("masks", "masks, shard 3/64")


def test_a_status_counts_the_whole_and_each_share():
    generator = random.Random(0)
    problems = {PurePath(f"{n}.jpg"): generator.choice(["", None]) for n in range(50)}
    problems[PurePath("bad\udcff.jpg")] = "bad\udcff.jpg is not an image"
    status = WorkStatus(problems)
    done = sum(problem is not None for problem in problems.values())
    lines = status.describe(4).splitlines()
    assert not status.is_complete
    assert lines[0] == "problem: bad\\udcff.jpg is not an image"
    assert lines[-1] == f"{done} of 51 done (1 with problems), {51 - done} left"
    counts = [line.split(": ")[1].split() for line in lines[1:-1]]
    assert [line.split(": ")[0] for line in lines[1:-1]] == [f"shard {i}/4" for i in range(1, 5)]
    assert [sum(int(words[i]) for words in counts) for i in (0, 2)] == [done, 51]
    assert WorkStatus({PurePath("a"): "", PurePath("b"): "bad"}).is_complete
    assert WorkStatus({PurePath("a"): ""}).describe() == "1 of 1 done, 0 left"
