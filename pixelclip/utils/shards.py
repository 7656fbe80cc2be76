"""Which share of many inputs is this process's, where several processes divide them.

A share is what a hash of the inputs' names gives it, so that each input has one owner also where
the processes list a folder at different moments. Processes need not know of each other: what is
finished is recognized by its files, with any number of shards.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath


@dataclass(frozen=True)
class Shard:
    """One of several shares; by default, everything.

    Attributes:
        index: 0 to count - 1; people read and write 1 to count.
        count: number of shares.
        local_index, local_count: the same among the processes of this machine, to divide its GPUs
            and cores.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1

    def __str__(self) -> str:
        return f"shard {self.index + 1}/{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether there is only one share."""
        return self.count == 1

    def owns(self, name: PurePath) -> bool:
        """Whether an input is in this share, by its path below the folder of all inputs."""
        return choose_shard(name, self.count) == self.index

    def label(self, work: str) -> str:
        """What a progress bar says: the work and, if there are several, the shard."""
        return work if self.is_whole else f"{work}, {self}"

    def local_gpus(self, count: int) -> list[int]:
        """This process's GPUs of the ``count`` of the machine; one is shared if there are fewer."""
        own = list(range(self.local_index, count, self.local_count))
        return own or [self.local_index % count]


WHOLE = Shard()


def choose_shard(name: PurePath, count: int) -> int:
    """The index of the share that an input belongs to, the same on every machine."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:8], "big") % count


def find_shard(given: str | None = None, environment: Mapping[str, str] = os.environ) -> Shard:
    """This process's share, of the command line or, without one, of torchrun's and SLURM's.

    A SLURM array divides the inputs; the processes that torchrun or srun start in a task of the
    array divide its share again. Without any of them, the share is everything.

    Args:
        given: such as "3/64" for the third of 64; "1/1" for everything, whatever the environment;
            None for what the environment says.
        environment: variables. RANK and WORLD_SIZE only count next to torchrun's own, and SLURM's
            tasks only where srun has started them: other programs set the former, and a batch
            script or an interactive session is one process with the number of tasks it may start.

    Raises:
        ValueError: a share that does not exist, or a SLURM array with gaps.
    """
    if given is not None:
        return _parse(given)
    array, tasks = _find_in_array(environment), _find_in_step(environment)
    if tasks.index >= tasks.count:
        raise ValueError(f"There is no process {tasks.index}, from 0, of {tasks.count}.")
    index, count = array.index * tasks.count + tasks.index, array.count * tasks.count
    return replace(tasks, index=index, count=count)


def _parse(given: str) -> Shard:
    parts = re.fullmatch(r"([0-9]+)/([0-9]+)", given)
    if not parts or not 1 <= int(parts[1]) <= int(parts[2]):
        raise ValueError(f"The shard is {given!r}; expected 1/64 to 64/64 for 64 shares, say.")
    return Shard(int(parts[1]) - 1, int(parts[2]))


def _find_in_array(environment: Mapping[str, str]) -> Shard:
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return WHOLE
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "MAX", "STEP")]
    own, count, first, last, step = (_read_number(environment, name) for name in names)
    step = max(step, 1)
    # Of an array such as 1,2,9, a task does not learn how many are before it.
    if last != first + step * (count - 1) or own not in range(first, last + 1, step):
        raise ValueError(
            f"Task {own} of a SLURM array of {count} from {first} to {last} cannot tell which "
            "share is its: number the array without gaps, or give each task its --shard."
        )
    return Shard((own - first) // step, count)


def _find_in_step(environment: Mapping[str, str]) -> Shard:
    """The share among the processes that torchrun, or else srun, has started."""
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"]
        return Shard(*(_read_number(environment, name) for name in names))
    if "SLURM_STEP_NUM_TASKS" in environment:
        names = ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"]
        index, count, local = (_read_number(environment, name) for name in names)
        return Shard(index, count, local, _count_local_tasks(environment))
    return WHOLE


def _count_local_tasks(environment: Mapping[str, str]) -> int:
    """How many of srun's tasks this machine has; SLURM writes 2, 2, 2, 1 as "2(x3),1"."""
    text = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    runs = re.findall(r"([0-9]+)(?:\(x([0-9]+)\))?", text)
    counts = [int(tasks) for tasks, machines in runs for _ in range(int(machines or 1))]
    return dict(enumerate(counts)).get(_read_number(environment, "SLURM_NODEID"), 1)


def _read_number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch("[0-9]+", text):
        raise ValueError(f"{name} is {text!r}; expected a number. --shard 1/1 leaves it aside.")
    return int(text)


@dataclass(frozen=True)
class WorkStatus:
    """How much of all inputs is done.

    Attributes:
        problems: by the input's name: "" where the results exist, why there are none or only some,
            or None where it is still to be done.
    """

    problems: Mapping[PurePath, str | None]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be done; what has a problem was tried."""
        return None not in self.problems.values()

    def describe(self, num_shards: int = 1) -> str:
        """Lines of the problems, of each share where there are several, and of the whole."""
        done = [name for name, problem in self.problems.items() if problem is not None]
        lines = [f"problem: {problem}" for problem in self.problems.values() if problem]
        with_problems = f" ({len(lines)} with problems)" if lines else ""
        if num_shards > 1:
            totals, finished = (
                Counter(choose_shard(name, num_shards) for name in names)
                for names in (self.problems, done)
            )
            lines += [
                f"{Shard(index, num_shards)}: {finished[index]} of {totals[index]} done"
                for index in range(num_shards)
            ]
        left = len(self.problems) - len(done)
        lines.append(f"{len(done)} of {len(self.problems)} done{with_problems}, {left} left")
        # A file name may have bytes that are not text, which could not be printed.
        return "\n".join(lines).encode(errors="backslashreplace").decode()
