"""A long training with evaluations and checkpoints: what it takes stays what it is.

The figure of docs/reliability.md: ``SOAK_FIGURE=docs/pictures/soak.png pytest -m slow -s
tests/reliability/test_soak.py``; ``SOAK_ITERATIONS`` is 2000.
"""

import json
import os
from pathlib import Path

import matplotlib
import pytest
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase

from . import small_training

ITERATIONS = int(os.environ.get("SOAK_ITERATIONS", "2000"))
EVALUATIONS, CHECKPOINTS = 10, 20
PERIOD = max(1, ITERATIONS // 200)  # of measuring


class Measure(HookBase):
    """Notes what this process holds, every so many iterations, as lines of JSON."""

    def __init__(self, path, output):
        self.path, self.output = path, output

    def after_step(self):
        if (self.trainer.iter + 1) % PERIOD:
            return
        status = Path("/proc/self/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in status)
        line = {
            "iteration": self.trainer.iter + 1,
            "memory / MiB": int(fields["VmRSS"].split()[0]) / 1024,
            "open files": len(os.listdir("/proc/self/fd")),
            "threads": int(fields["Threads"]),
            "disk / MiB": self.size_on_disk() / 2**20,
        }
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")

    def size_on_disk(self):
        """Without the final checkpoint, which comes once, in the last iteration."""
        files = (path for path in self.output.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files if path.name != "model_final.pth")


def work(folder):
    small_training.speak_to(folder / "report.txt")
    overrides = (
        *("SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", ITERATIONS // CHECKPOINTS),
        *("SOLVER.MAX_TO_KEEP", 3, "TEST.EVAL_PERIOD", ITERATIONS // EVALUATIONS),
        *("DATALOADER.NUM_WORKERS", 1),
    )
    cfg = small_training.make_config(folder, folder / "output", overrides)
    if small_training.TEST_SET not in DatasetCatalog:
        small_training.use_test_set(cfg, folder / "test_set")
    measure = Measure(folder / "measured.jsonl", folder / "output")
    small_training.train(cfg, [measure])


def draw(lines, path):
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in lines[0] if name != "iteration"]
    figure, axes = pyplot.subplots(len(names), 1, sharex=True, figsize=(7, 7))
    for axis, name in zip(axes, names, strict=True):
        axis.plot([line["iteration"] for line in lines], [line[name] for line in lines])
        axis.set_ylabel(name)
        axis.set_ylim(0, 1.15 * max(line[name] for line in lines))
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("iteration")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_files_threads_and_disk_are_flat(tmp_path):
    small_training.prepare(tmp_path, num_images=20)
    process = small_training.CONTEXT.Process(target=work, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0, (tmp_path / "report.txt").read_text()[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "measured.jsonl").read_text().splitlines()]
    if "SOAK_FIGURE" in os.environ:
        draw(lines, os.environ["SOAK_FIGURE"])
    # After the first evaluations and checkpoints everything has been used once.
    quarter = lines[len(lines) // 4 :]
    first, last = quarter[: len(quarter) // 3], quarter[-(len(quarter) // 3) :]
    for name in lines[0]:
        if name == "iteration":
            continue
        most = [max(line[name] for line in part) for part in (first, last)]
        print(f"{name}: at most {most[0]:.1f} early, {most[1]:.1f} late")
        assert most[1] <= most[0] * 1.03 + 1, name
    for name in ("open files", "threads"):
        assert lines[-1][name] <= quarter[0][name] + 1, name
    results = Path(tmp_path, "output", "metrics.json").read_text()
    assert results.count("sem_seg/mIoU") >= EVALUATIONS
