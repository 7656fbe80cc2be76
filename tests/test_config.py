from pathlib import Path

import pytest
from detectron2.config import get_cfg

from pixelclip import add_pixelclip_config
from pixelclip.config import RENAMED_KEYS, take_renamed_keys

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("pixelclip_*.yaml"))


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, type(node)):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_added_key_is_used_by_the_code():
    plain, ours = get_cfg(), get_cfg()
    add_pixelclip_config(ours)
    added = sorted(set(leaves(ours)) - set(leaves(plain)) - {old for old, _ in RENAMED_KEYS})
    assert "MODEL.PIXELCLIP.MOMENTUM" in added
    assert "SOLVER.CLIP_MULTIPLIER" in added
    sources = [p.read_text() for p in (ROOT / "pixelclip").rglob("*.py") if p.name != "config.py"]
    code = "\n".join(sources)
    unused = [key for key in added if f".{key.split('.')[-1]}" not in code]
    assert not unused


def test_every_key_has_a_comment():
    lines = (ROOT / "pixelclip" / "config.py").read_text().splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        if line.strip().startswith("node.") or "cfg.SOLVER." in line:
            assert above.strip().startswith("#"), line


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_merge_and_have_the_published_solver(path):
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_file(str(path))
    assert cfg.MODEL.META_ARCHITECTURE == "PixelCLIP"
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (48, 10000)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_END) == (2e-4, 1e-4)
    assert cfg.OUTPUT_DIR.endswith(path.stem)
    is_vit = "vit" in path.stem
    assert ("attention" if is_vit else "full") == cfg.MODEL.CLIP.FINETUNE
    assert (100.0 if is_vit else 1.0) == cfg.MODEL.PIXELCLIP.ASSIGNMENT_SCALE
    is_dino = path.stem.endswith("_dino")
    assert ("dino" if is_dino else "dataset") == cfg.MODEL.PIXELCLIP.MASK_SOURCE
    dino = cfg.MODEL.PIXELCLIP.DINO
    assert (dino.MODEL, dino.NUM_MASKS) == ("vit_small_patch16_224.dino", 16)


def test_former_keys_keep_working_with_a_warning(caplog):
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_list(["SOLVER.CHECKPOINTS_KEPT", 3, "DATALOADER.MAX_BROKEN_SHARE", 0.1])
    cfg.freeze()
    taken = take_renamed_keys(cfg)
    assert (taken.SOLVER.MAX_TO_KEEP, taken.DATALOADER.MAX_CORRUPT_FRACTION) == (3, 0.1)
    assert taken.SOLVER.CHECKPOINTS_KEPT is None and taken.is_frozen()
    assert "SOLVER.CHECKPOINTS_KEPT is deprecated; use SOLVER.MAX_TO_KEEP" in caplog.text
    assert take_renamed_keys(taken) is taken
