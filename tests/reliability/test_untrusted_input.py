"""Untrusted files: no code in them runs, and none of them fills the memory."""

import ast
import contextlib
import json
import os
import pickle
import resource
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.data.sa1b import load_sa1b
from pixelclip.data.sa1b_files import MAX_JSON_BYTES
from pixelclip.data.sa1b_index import TarIndexError, build_tar_index, load_tar_index
from pixelclip.engine.setup import load_config
from pixelclip.evaluation.mask_regions import MaskRegionsMapper
from pixelclip.modeling.clip_loader import load_clip

from ..conftest import TINY_VIT
from ..data.sa1b_files import write_tar

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("pixelclip", "tools", "datasets")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.makedirs, (self.path, 0o777, True)


READERS = {
    "checkpoint": lambda path, model: PixelCLIPCheckpointer(model).load(str(path)),
    "CLIP weights": lambda path, model: load_clip(str(path.with_name("clip.json")), str(path)),
}


@pytest.mark.parametrize("protocol", ["zip", "legacy", "plain pickle"])
@pytest.mark.parametrize("reader", READERS)
def test_no_code_in_a_file_of_weights_is_run(reader, protocol, tiny_model, tmp_path):
    (tmp_path / "clip.json").write_text(json.dumps(TINY_VIT))
    path = tmp_path / "iteration_0000001_rank_0.pth"
    content = {"model": Payload(tmp_path / "owned"), "state_dict": Payload(tmp_path / "owned")}
    if protocol == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        READERS[reader](path, tiny_model)
    assert not (tmp_path / "owned").exists()
    with contextlib.suppress(RuntimeError):  # that it would have been run otherwise
        torch.load(path, weights_only=False)
    assert (tmp_path / "owned").exists()


def test_no_code_in_an_index_is_run(tmp_path):
    tar = tmp_path / "a.tar"
    write_tar(tar, {"1.jpg": b"i", "1.json": b"j"})
    build_tar_index(str(tar))
    index = Path(f"{tar}.index.npz")
    with np.load(index) as kept:
        arrays = dict(kept)
    for name in arrays:
        payload = np.array([Payload(tmp_path / "owned")], object)
        np.savez(index, **{**arrays, name: payload})
        assert load_tar_index(str(tar)) is None
        assert not (tmp_path / "owned").exists()


def test_no_code_in_a_config_is_run(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"OUTPUT_DIR: !!python/object/apply:os.makedirs [{tmp_path / 'owned'}]")
    with pytest.raises(yaml.constructor.ConstructorError):
        load_config(str(path))
    assert not (tmp_path / "owned").exists()


def header(kind, size):
    member = tarfile.TarInfo("a.jpg")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("first", [True, False])
def test_an_extended_header_of_eight_gigabytes_is_not_read(kind, first, tmp_path):
    tar = tmp_path / "a.tar"
    start = b""
    if not first:
        write_tar(tar, {"1.jpg": b"i", "1.json": b"j"})
        start = tar.read_bytes()[:2048]
    with open(tar, "wb") as file:
        file.write(start + header(kind, 2**33))
        file.truncate(2**33 + 8192)  # takes no room on the disk
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, hard))
    try:
        if first:
            with pytest.raises(TarIndexError, match="claims 8589934592 bytes"):
                build_tar_index(str(tar))
        else:
            index = build_tar_index(str(tar))
            assert len(index.table) == 1 and "claims 8589934592 bytes" in str(index.problems)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_long_names_are_still_read(tmp_path):
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        tar = tmp_path / "a.tar"
        write_tar(tar, {"x" * 300 + s: s.encode() for s in (".jpg", ".json")}, format=tar_format)
        assert [record["image_id"] for record in load_sa1b(tmp_path)] == ["x" * 300]


def test_a_huge_file_of_masks_is_not_read(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    mapper = MaskRegionsMapper(
        lambda record: {"height": 2, "width": 2},
        num_classes=2,
        ignore_label=255,
        mask_resolution=(2, 2),
        mask_folder=tmp_path,
    )
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "label.png")
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(tmp_path / "label.png")}
    with pytest.raises(ValueError, match=r"a\.json .*at most 16777216"):
        mapper(record)


def calls(path):
    """(dotted name, keywords) of every call in a source file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            yield ast.unparse(node.func), keywords


FORBIDDEN = ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load",
             "os.system", "tarfile.extractall", "joblib.load", "marshal.loads")  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_read_in_a_way_that_runs_code(path):
    for name, keywords in calls(path):
        assert name not in FORBIDDEN, name
        assert not name.endswith((".extractall", ".extract")), name
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", "torch.load without weights_only"
        if name == "np.load":
            assert keywords.get("allow_pickle", "False") == "False"
        assert keywords.get("shell") != "True", f"{name} through a shell"
        assert keywords.get("trust_remote_code") != "True", name
