"""Four processes divide the work, one of them is killed, and the rest is done in several ways."""

import os
import signal

import pytest

from pixelclip.mask_generation.generate import find_status, generate_masks
from pixelclip.mask_generation.superpixels import SuperpixelGenerator
from pixelclip.utils.shards import Shard

from . import small_training
from .killed_work import CONTEXT, MaskGeneration, contents


def do_share(folder, output, shard, killed):
    small_training.speak_to(folder / "report.txt")
    if killed:
        die_at_the_second_json()
    generate_masks(folder / "images", output, SuperpixelGenerator(), num_workers=1, shard=shard)


def die_at_the_second_json():
    replace, names = os.replace, []

    def replace_or_die(source, target):
        names.append(str(target))
        if sum(name.endswith(".json") for name in names) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die


def run_at_once(folder, output, shards, killed=None):
    """The exit codes of a process for each shard."""
    arguments = [(folder, output, shard, shard == killed) for shard in shards]
    processes = [CONTEXT.Process(target=do_share, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize(
    "restarted",
    [[Shard(2, 4)], [Shard(index, 3) for index in range(3)], [Shard(2, 4)] * 2, [Shard()]],
    ids=["same", "other number", "same twice", "whole"],
)
def test_a_killed_shard_is_finished_by_any_others(tmp_path, restarted):
    MaskGeneration().prepare(tmp_path)
    (tmp_path / "images" / "bad.jpg").write_bytes(b"not an image")
    output, alone = tmp_path / "shards", tmp_path / "alone"
    assert run_at_once(tmp_path, alone, [Shard()]) == [0]
    four = [Shard(index, 4) for index in range(4)]
    assert run_at_once(tmp_path, output, four, killed=four[2]) == [0, 0, -signal.SIGKILL, 0]
    status = find_status(tmp_path / "images", output, SuperpixelGenerator())
    lines = [line.split() for line in status.describe(4).splitlines() if line.startswith("shard")]
    assert [done == total for _, _, done, _, total, _ in lines] == [True, True, False, True]
    assert not status.is_complete
    assert set(run_at_once(tmp_path, output, restarted)) == {0}
    status = find_status(tmp_path / "images", output, SuperpixelGenerator())
    assert status.describe().splitlines()[-1] == "13 of 13 done (1 with problems), 0 left"
    assert run_at_once(tmp_path, output, [Shard()]) == [0]
    assert contents(output) == contents(alone)
