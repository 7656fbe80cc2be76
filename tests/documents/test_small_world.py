"""The small copy of the repository: its configs and data, and that nothing else is touched."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from pixelclip.data.datasets import BENCHMARKS
from pixelclip.data.datasets.sem_seg_benchmark import list_records
from pixelclip.engine.setup import load_config
from tests.documents.check import REPOSITORY
from tests.documents.small_world import SmallWorld, build_small_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("needs a git clone")
    root = tmp_path_factory.mktemp("documents") / "world"
    return build_small_world(REPOSITORY, root, labels_prepared=True)


def test_every_config_is_small_and_runs_without_downloads(world):
    configs = [
        path for path in (world.root / "configs").rglob("*.yaml") if "_BASE_" in path.read_text()
    ]
    assert len(configs) > 20
    for path in configs:
        cfg = load_config(str(path))
        assert max(cfg.MODEL.CLIP.RESOLUTION) <= 96, path
        assert cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH <= 4, path
        assert cfg.MODEL.CLIP.PRETRAINED in ("", "captions"), path
        assert cfg.MODEL.CLIP.ARCH.startswith(("toy", str(world.root))), path


def test_a_config_differs_by_nothing_but_the_small_values(world):
    name = "configs/pixelclip_convnextb.yaml"
    before = yaml.safe_load((REPOSITORY / name).read_text())
    after = yaml.safe_load((world.root / name).read_text())
    assert after["MODEL"]["CLIP"].pop("ARCH").endswith("tiny_convnext.json")
    assert after["MODEL"]["CLIP"].pop("PRETRAINED") == ""
    assert after["MODEL"]["CLIP"].pop("RESOLUTION") == "(64, 64)"
    for key in ("ARCH", "PRETRAINED", "RESOLUTION"):
        del before["MODEL"]["CLIP"][key]
    assert after == before


def test_every_benchmark_is_there(world, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(world.root / "data" / "benchmarks"))
    for benchmark in BENCHMARKS:
        assert list_records(benchmark), benchmark.name


def test_paths_machines_and_ports_are_this_worlds(world):
    fitted = world.fit("x --root /data/sa1b tcp://ADDRESS_OF_MACHINE_0:29500")
    assert fitted.startswith(f"x --root {world.root}/data/sa1b tcp://127.0.0.1:")
    assert "29500" not in fitted


def test_make_takes_the_running_environment_for_installed(world):
    result = subprocess.run(
        ["make", "--dry-run", "install"],
        cwd=world.root,
        env=world.environment,
        capture_output=True,
        text=True,
    )
    assert "pip" not in result.stdout and "venv" not in result.stdout
    program = "import sys; print(sys.executable)"
    python = [str(Path(".venv/bin/python")), "-c", program]
    result = subprocess.run(
        python, cwd=world.root, env=world.environment, capture_output=True, text=True
    )
    assert os.path.exists(result.stdout.strip())
