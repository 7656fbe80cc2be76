"""A copy of the repository in which the documents' commands run in seconds, as they stand.

What is small or other there, for every block:

- the configs have a tiny CLIP with random weights, small images and two iterations;
- the toy benchmark has 12 + 3 + 6 scenes;
- /data/sa1b has six drawn images in a tar, /data/benchmarks a few images of each benchmark
  in its published layout, /data/clip files of the tiny CLIP's weights (/data is a folder of the
  copy);
- Hugging Face's cache holds a published file with random weights under pixelclip_vitb16's address;
- photo.jpg, the folder photos, rooms/ and CamVid below the benchmarks are drawn, and model.pth
  is a checkpoint with random weights;
- /data/models/stable_diffusion is a tiny pipeline whose text encoder is that of model.pth;
- .venv is the running environment, which pip may not change; there is no GPU and no network, and
  SLURM's two commands do what they do on a single machine;
- ADDRESS_OF_MACHINE_0 is this machine, and port 29500 a free one.
"""

import io
import json
import os
import shutil
import socket
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.checkpoint.conversion import convert_checkpoint
from pixelclip.data.datasets.ade20k_150 import prepare_ade20k_150
from pixelclip.data.datasets.coco_stuff import prepare_coco_stuff
from pixelclip.data.datasets.pascal_context import prepare_pascal_context
from pixelclip.data.datasets.pascal_voc import prepare_pascal_voc
from pixelclip.engine.setup import load_config
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.clip_loader import load_clip
from tests.conftest import TINY_CONVNEXT, TINY_VIT, write_images
from tests.data.published_layouts import (
    write_ade,
    write_camvid,
    write_cityscapes,
    write_coco_stuff,
    write_context,
    write_voc,
)
from tests.repository_copy import copy_repository

# Values of configs/Base-PixelCLIP.yaml, and of every other config that sets the same key.
_SMALL_VALUES: dict[str, Any] = {
    "MODEL.CLIP.RESOLUTION": "(64, 64)",
    "MODEL.CLIP.PRETRAINED": "",
    "MODEL.PIXELCLIP.NUM_CLUSTERS": 8,
    "MODEL.PIXELCLIP.MASK_RESOLUTION": "(32, 32)",
    "MODEL.PIXELCLIP.TEST_FEATURE_SIZE": "(8, 8)",
    "INPUT.MIN_SIZE_TRAIN": "(60,)",
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.CROP.SIZE": "(48, 48)",
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 2,
    "DATALOADER.NUM_WORKERS": 0,
}
# The toy's model is small as it is.
_FEW_ITERATIONS: dict[str, Any] = {"SOLVER.IMS_PER_BATCH": 2, "SOLVER.MAX_ITER": 2}

# In pixelclip/toy/datasets.py.
_SCENE_COUNTS = {"count=4000": "count=12", "count=300": "count=3", "count=600": "count=6"}

_COMMANDS = {
    "python": 'exec {python} "$@"',
    "pip": 'exec {python} -m pip "$@"',
    "pixelclip": 'exec {python} {root}/tools/cli.py "$@"',
    "pytest": 'exec {python} -m pytest "$@"',
    "torchrun": 'exec {python} -m torch.distributed.run "$@"',
    "srun": 'exec "$@"',
    "scontrol": "echo 127.0.0.1",
}


class SmallWorld:
    """The copy of the repository.

    Attributes:
        root: its folder, in which commands run.
        environment: the environment variables of the first command.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = _make_environment(root)
        self._port = str(_find_free_port())

    def fit(self, code: str) -> str:
        """Put this world's folder, machine and port in the place of a document's."""
        if "/data/models/stable_diffusion" in code:
            self._write_diffusion_model()
        code = code.replace("/data/", f"{self.root}/data/")
        return code.replace("ADDRESS_OF_MACHINE_0", "127.0.0.1").replace("29500", self._port)

    def _write_diffusion_model(self) -> None:
        """Write it when it is asked for: diffusers takes seconds to import."""
        from tests.documents.tiny_diffusion import save_tiny_diffusion_model

        folder = self.root / "data" / "models" / "stable_diffusion"
        if not folder.exists():
            model = _build_model(self.root)
            PixelCLIPCheckpointer(model).load(str(self.root / "model.pth"))
            save_tiny_diffusion_model(model, folder)


def build_small_world(repository: Path, root: Path, labels_prepared: bool) -> SmallWorld:
    """Copy the files that git knows, make them small, and draw the data.

    Args:
        repository: of which a copy is made; nothing is written there.
        root: folder of the copy, which must not exist.
        labels_prepared: whether the commands of ``datasets/`` have run.

    Raises:
        subprocess.CalledProcessError: the repository is not a git repository.
        ValueError: what was to be made small is not there any more.
    """
    copy_repository(repository, root)
    _write_commands(root / ".venv")
    _write_architectures(root / "data" / "clip")
    for path in (root / "configs").rglob("*.yaml"):
        _reduce_config(path, root)
    _replace(root / "pixelclip/toy/datasets.py", _SCENE_COUNTS)
    _write_data(root, labels_prepared)
    _write_weights(root)
    return SmallWorld(root)


def _write_commands(folder: Path) -> None:
    """Write an environment that runs the present interpreter; `make` takes it for installed."""
    (folder / "bin").mkdir(parents=True)
    for name, command in _COMMANDS.items():
        path = folder / "bin" / name
        line = command.format(python=sys.executable, root=folder.parent)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    (folder / "bin" / "activate").write_text(f'PATH="{folder}/bin:$PATH"\n')
    (folder / "installed.stamp").touch()


def _make_environment(root: Path) -> dict[str, str]:
    passed_on = ("LANG", "TMPDIR", "OMP_NUM_THREADS", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
    (root / "home").mkdir(exist_ok=True)
    return {
        **{name: os.environ[name] for name in passed_on if name in os.environ},
        "PATH": f"{root}/.venv/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(root / "home"),
        "PYTHONPATH": str(root),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "PIP_DRY_RUN": "1",
        "PIP_NO_INDEX": "1",
        "SLURM_NNODES": "1",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "127.0.0.1",
    }


def _write_architectures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, config in (("tiny_vit", TINY_VIT), ("tiny_convnext", TINY_CONVNEXT)):
        (folder / f"{name}.json").write_text(json.dumps(config))


def _reduce_config(path: Path, root: Path) -> None:
    """Put small values into a config, where it has those keys; the base gets all of them."""
    content = yaml.safe_load(path.read_text())
    architecture = (content.get("MODEL") or {}).get("CLIP", {}).get("ARCH", "")
    small = _FEW_ITERATIONS if architecture == "toy" else _SMALL_VALUES
    for key, value in small.items():
        _set(content, key.split("."), value, add=path.stem == "Base-PixelCLIP")
    if architecture and architecture != "toy":
        kind = "tiny_convnext" if "convnext" in architecture else "tiny_vit"
        content["MODEL"]["CLIP"]["ARCH"] = str(root / "data" / "clip" / f"{kind}.json")
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _set(content: dict[str, Any], key: list[str], value: Any, add: bool) -> None:
    for name in key[:-1]:
        if name not in content and not add:
            return
        content = content.setdefault(name, {})
    if add or key[-1] in content:
        content[key[-1]] = value


def _replace(path: Path, replacements: dict[str, str]) -> None:
    text = path.read_text()
    for before, after in replacements.items():
        if before not in text:
            raise ValueError(f"{path} does not hold {before!r} any more; fix tests/documents")
        text = text.replace(before, after)
    path.write_text(text)


def _write_data(root: Path, labels_prepared: bool) -> None:
    benchmarks = root / "data" / "benchmarks"
    for write in (write_ade, write_camvid, write_cityscapes, write_coco_stuff, write_context):
        write(benchmarks)
    write_voc(benchmarks)
    _prepare_cityscapes(benchmarks)
    if labels_prepared:
        for prepare in (prepare_ade20k_150, prepare_coco_stuff, prepare_pascal_context):
            prepare(benchmarks, 1)
        prepare_pascal_voc(benchmarks, 1)
    write_images(root / "photos")
    _write_shard(root / "photos", root / "data" / "sa1b" / "sa_000000.tar")
    shutil.copyfile(root / "photos" / "sa_0.jpg", root / "photo.jpg")
    for folder, mode in (("images", "RGB"), ("labels", "L")):
        path = benchmarks / "rooms" / folder / "0.png"
        path.parent.mkdir(parents=True)
        Image.new(mode, (80, 60)).save(path)


def _prepare_cityscapes(benchmarks: Path) -> None:
    """Stand in for Cityscapes' own tool, which no document runs."""
    for path in benchmarks.rglob("*_gtFine_polygons.json"):
        name = path.name.replace("polygons.json", "labelTrainIds.png")
        Image.fromarray(np.arange(24 * 16, dtype=np.uint8).reshape(24, 16) % 19).save(
            path.with_name(name)
        )


def _write_shard(photos: Path, tar: Path) -> None:
    tar.parent.mkdir(parents=True)
    with tarfile.open(tar, "w") as file:
        for path in sorted(photos.iterdir()):
            content = path.read_bytes()
            member = tarfile.TarInfo(f"./{path.name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def _write_weights(root: Path) -> None:
    """Write model.pth, and the weights that the documents name or that a download would give."""
    torch.manual_seed(0)
    PixelCLIPCheckpointer(_build_model(root), str(root)).save("model")
    folder = root / "data" / "clip"
    clip = load_clip(str(folder / "tiny_vit.json"), "")
    save_file(clip.state_dict(), folder / "ViT-B-16-openai.safetensors")
    # The cache's layout: a revision is the name of a commit, whose files lie below snapshots.
    cache = root / "home/.cache/huggingface/hub/models--hsshin98--PixelCLIP"
    published = cache / "snapshots/0/weights/pixelclip_vit_base.pth"
    published.parent.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0")
    convert_checkpoint(root / "model.pth", published, "published")


def _build_model(root: Path) -> PixelCLIP:
    overrides = ["MODEL.DEVICE", "cpu"]
    return PixelCLIP(load_config(str(root / "configs" / "pixelclip_vitb16.yaml"), overrides))


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
