"""The repeated comparisons: what each variant changes, resuming, the table."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from pixelclip.engine.setup import load_config
from pixelclip.toy import ablations
from pixelclip.toy.ablations import (
    PAPER_SETTING,
    VARIANTS,
    Variant,
    ablation_table,
    reproduce_ablations,
    run_variant,
    summarize,
    toy_config,
)
from pixelclip.toy.scenes import CLASS_NAMES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_variant_changes_the_config_and_no_two_are_the_same(tmp_path: Path) -> None:
    texts = [
        toy_config(variant.options(), "toy_scenes_val", tmp_path, 1).dump()
        for variant in VARIANTS
    ]
    trained = [text for text, variant in zip(texts, VARIANTS, strict=True) if variant.is_trained]
    assert len(set(trained)) == len(trained)
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    assert VARIANTS[0] == Variant("Method", PAPER_SETTING)
    plus = next(variant for variant in VARIANTS if variant.name == "plus")
    written = load_config("configs/demo/toy_plus.yaml")
    trained_as = toy_config(plus.options(), "toy_scenes_val", tmp_path, 1)
    node, others = written.MODEL.PIXELCLIP, trained_as.MODEL.PIXELCLIP
    differs = {key for key in node if node[key] != others[key]}
    assert differs == {"TEST_MASK_FEATURES", "TEST_MASK_OVERLAP"}
    assert written.SOLVER == trained_as.SOLVER


def test_summarize_separates_stuff_from_things() -> None:
    ious = {f"IoU-{name}": float(index) for index, name in enumerate(CLASS_NAMES)}
    metrics = summarize({"sem_seg": {"mIoU": 9.5, **ious}})
    assert metrics == {"mIoU": 9.5, "stuff": 3.5, "things": 13.5}


def test_the_table_has_mean_spread_and_agreement() -> None:
    variants = [
        Variant("Method", PAPER_SETTING),
        Variant("Components", "worse one", paper="worse"),
        Variant("Components", "better one", paper="worse"),
        Variant("Components", "unclear one", paper="worse"),
        Variant("Components", "not run"),
    ]

    def runs(*values: float) -> list[dict[str, float]]:
        return [{"mIoU": v, "stuff": v, "things": v} for v in values]

    results = {
        PAPER_SETTING: runs(40.0, 42.0),
        "worse one": runs(39.0, 40.0),
        "better one": runs(45.0),
        "unclear one": runs(39.0, 41.0),
    }
    table = ablation_table(variants, results).splitlines()
    assert table[3] == "| paper setting | 41.0 ± 1.4 | 41.0 ± 1.4 | 41.0 ± 1.4 |  |  |  |"
    assert table[5].endswith("| -1.5 | worse | yes |")
    assert table[6].endswith("| 45.0 | 45.0 | 45.0 | +4.0 | worse | no |")
    assert table[7].endswith("| -1.0 | worse | undecided |")
    assert len(table) == 8


def test_finished_runs_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def pretend(cfg: object, trains: bool) -> dict[str, dict[str, float]]:
        calls.append(cfg.OUTPUT_DIR)  # type: ignore[attr-defined]
        return {"sem_seg": {"mIoU": 1.0, **{f"IoU-{name}": 1.0 for name in CLASS_NAMES}}}

    monkeypatch.setattr(ablations, "_measure", pretend)
    variants = [VARIANTS[0], next(v for v in VARIANTS if not v.is_trained)]
    table = reproduce_ablations(variants, [1, 2], tmp_path)
    # The training-free method has no seed.
    assert len(calls) == 3
    assert json.loads((tmp_path / "ablations.json").read_text())[PAPER_SETTING][1]["mIoU"] == 1.0
    assert reproduce_ablations(variants, [1, 2], tmp_path) == table
    assert len(calls) == 3


def test_an_interrupted_training_is_not_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {"sem_seg": {"mIoU": 1.0, **{f"IoU-{name}": 1.0 for name in CLASS_NAMES}}}

    def interrupted(cfg: CfgNode, trains: bool) -> dict[str, dict[str, float]]:
        # What Detectron2 leaves: a line for each 20 iterations.
        (Path(cfg.OUTPUT_DIR) / "metrics.json").write_text('{"iteration": 19}\n{"iteration": 39}\n')
        raise KeyboardInterrupt

    monkeypatch.setattr(ablations, "_measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce_ablations(VARIANTS[:1], [1], tmp_path)
    monkeypatch.setattr(ablations, "_measure", lambda *_: results)
    reproduce_ablations(VARIANTS[:1], [1], tmp_path)
    assert json.loads((tmp_path / "ablations.json").read_text())[PAPER_SETTING][0]["mIoU"] == 1.0


def test_weights_are_trained_once_and_evaluated_in_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[bool, str, str]] = []

    def pretend(cfg: CfgNode, trains: bool) -> dict[str, dict[str, float]]:
        calls.append((trains, cfg.MODEL.WEIGHTS, cfg.MODEL.PIXELCLIP.TEST_MASKS))
        if trains:
            torch.save({}, Path(cfg.OUTPUT_DIR) / "model_final.pth")
        return {"sem_seg": {"mIoU": 1.0, **{f"IoU-{name}": 1.0 for name in CLASS_NAMES}}}

    monkeypatch.setattr(ablations, "_measure", pretend)
    naclip, superpixels, regions = (
        next(variant for variant in VARIANTS if variant.name == name)
        for name in (
            "NACLIP, superpixels",
            "paper setting, superpixels",
            "paper setting, true regions",
        )
    )
    reproduce_ablations([superpixels, regions, naclip], [1, 2], tmp_path)
    folder = tmp_path / "toy_scenes_test" / "paper_setting"
    first, second = (str(folder / f"seed_{seed}" / "model_final.pth") for seed in (1, 2))
    assert calls == [
        *((True, "", "none"), (False, first, "superpixels"), (False, first, "given")),
        (False, "", "superpixels"),  # training-free: it has no seed
        *((True, "", "none"), (False, second, "superpixels"), (False, second, "given")),
    ]
    assert naclip.options()[:2] == ["MODEL.CLIP.DENSE_PATH", "naclip"]


def test_a_run_starts_with_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(cfg: object, trains: bool) -> dict[str, dict[str, float]]:
        drawn = torch.rand(()).item()
        return {"sem_seg": {"mIoU": drawn, **{f"IoU-{name}": 1.0 for name in CLASS_NAMES}}}

    monkeypatch.setattr(ablations, "_measure", pretend)
    first, again, other = (
        run_variant(VARIANTS[0], seed, tmp_path / folder, "toy_scenes_val")["mIoU"]
        for folder, seed in (("first", 5), ("again", 5), ("other", 6))
    )
    assert first == again != other


def test_options_are_for_all_variants_and_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []

    def pretend(cfg: CfgNode, trains: bool) -> dict[str, dict[str, float]]:
        seen.append((cfg.SOLVER.AMP.ENABLED, cfg.MODEL.PIXELCLIP.NUM_CLUSTERS))
        return {"sem_seg": {"mIoU": 1.0, **{f"IoU-{name}": 1.0 for name in CLASS_NAMES}}}

    monkeypatch.setattr(ablations, "_measure", pretend)
    variants = [VARIANTS[0], Variant("", "own", "MODEL.PIXELCLIP.NUM_CLUSTERS 3")]
    options = ["SOLVER.AMP.ENABLED", "True", "MODEL.PIXELCLIP.NUM_CLUSTERS", "5"]
    reproduce_ablations(variants, [1], tmp_path, options=options)
    assert seen == [(True, 5), (True, 3)]
    with pytest.raises(ValueError, match=r"options .*'5'.* and these are \[\].*another output"):
        reproduce_ablations(variants, [2], tmp_path)
    assert len(seen) == 2


def test_two_processes_make_a_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    is_running, may_end = threading.Event(), threading.Event()

    def pretend(cfg: CfgNode, trains: bool) -> dict[str, dict[str, float]]:
        calls.append(cfg.OUTPUT_DIR)
        is_running.set()
        assert may_end.wait(60)
        return {"sem_seg": {"mIoU": 1.0, **{f"IoU-{name}": 1.0 for name in CLASS_NAMES}}}

    monkeypatch.setattr(ablations, "_measure", pretend)
    with ThreadPoolExecutor(2) as pool:  # a lock on a file is as good between threads
        first = pool.submit(run_variant, VARIANTS[0], 1, tmp_path, "toy_scenes_val")
        assert is_running.wait(60)
        second = pool.submit(run_variant, VARIANTS[0], 1, tmp_path, "toy_scenes_val")
        assert not wait([second], timeout=0.5).done
        may_end.set()
        assert first.result(60) == second.result(60)
    assert len(calls) == 1


def test_a_bad_option_leaves_nothing_behind(tmp_path: Path) -> None:
    for options in (["SOLVER.NOPE", "1"], ["SOLVER.MAX_ITER"], ["SOLVER.MAX_ITER", "0"]):
        with pytest.raises(ValueError, match=r"SOLVER\.(NOPE|MAX_ITER)"):
            reproduce_ablations(VARIANTS, [1], tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()
