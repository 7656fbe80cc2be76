"""The commands that show and export what was learned, on tiny models, in this process."""

import importlib
import json
import re
import sys
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from pixelclip import PixelCLIP
from pixelclip.checkpoint import model_zoo
from tests.conftest import make_tiny_config, register_test_set, unregister_test_set

DATASET = "images_to_look_at_sem_seg"


@pytest.fixture
def run(capsys):
    """Runs a tool with arguments; returns its error, if any, and what it printed."""

    def run_tool(name, *arguments):
        code = cli.run(importlib.import_module(name).main, list(map(str, arguments)))
        printed = capsys.readouterr()
        assert (code == 0) == ("error: " not in printed.err)
        return printed.err if code else "", printed.out

    return run_tool


@pytest.fixture
def config_file(tiny_config, tmp_path):
    tiny_config.INPUT.MIN_SIZE_TEST = 32
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_config.dump())
    return path


@pytest.fixture
def dataset(tmp_path):
    register_test_set(tmp_path / "test_set", DATASET)
    yield DATASET
    unregister_test_set(DATASET)


def write_checkpoint(folder, architecture, num_clusters):
    cfg = make_tiny_config(architecture)
    cfg.MODEL.PIXELCLIP.NUM_CLUSTERS = num_clusters
    torch.manual_seed(num_clusters)
    folder.mkdir(exist_ok=True)
    path = folder / f"model_{num_clusters}.pth"
    torch.save({"model": PixelCLIP(cfg).state_dict()}, path)
    return path


@pytest.fixture
def checkpoints(tiny_vit_json, tmp_path):
    return [write_checkpoint(tmp_path / "runs", tiny_vit_json, count) for count in (4, 8)]


@pytest.mark.slow
def test_prompts_of_several_checkpoints(run, config_file, dataset, checkpoints, tmp_path):
    output = tmp_path / "prompts"
    arguments = ["--config-file", config_file, "--weights", *checkpoints, "--dataset", dataset]
    problem, printed = run("visualize_prompts", *arguments, "--output", output)
    assert not problem
    content = json.loads((output / "prompts.json").read_text())
    assert content["class_names"] == ["sky", "sea", "sand"]
    for entry, count in zip(content["checkpoints"], (4, 8), strict=True):
        assert entry["name"] == f"k = {count}"
        assert len(entry["clusters"]) == count
        assert sum(cluster["share"] for cluster in entry["clusters"]) == pytest.approx(1)
        assert 0 <= entry["matched_accuracy"] <= entry["purity"] <= 1
        assert entry["num_images"] == 3
        assert len(entry["clusters"][0]["nearest"]) == 3
        assert (output / f"usage_k{count}.png").is_file()
    figures = {path.name for path in output.glob("*.png")}
    assert {"clusters.png", "usage_k4.png", "usage_k8.png"} <= figures
    assert all(str(output / name) in printed for name in figures)
    assert Image.open(output / "clusters.png").width == 3 * 260


@pytest.mark.slow
def test_counts_over_a_data_set_are_kept(
    run, config_file, dataset, checkpoints, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    output = tmp_path / "prompts"
    arguments = ["--config-file", config_file, "--weights", checkpoints[0], "--dataset", dataset]
    arguments += ["--output", output, "--max-images", 2]
    run("visualize_prompts", *arguments)
    assert "[visualization]" in caplog.text
    assert not list(output.glob("plane_*"))
    first = (output / "prompts.json").read_text()
    (kept,) = output.glob("counts_*.json")
    forged = json.loads(kept.read_text())
    forged["skipped"] = 77
    kept.write_text(json.dumps(forged))
    run("visualize_prompts", *arguments)
    assert '"skipped_images": 77' in (output / "prompts.json").read_text()
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(
        DatasetCatalog.get(dataset)[0]["sem_seg_file_name"]
    )
    run("visualize_prompts", *arguments)
    again = json.loads((output / "prompts.json").read_text())["checkpoints"][0]
    assert again["skipped_images"] == 0
    assert again["purity"] != json.loads(first)["checkpoints"][0]["purity"]


def test_own_images_and_words_need_no_data_set(run, config_file, checkpoints, tmp_path):
    image, words = tmp_path / "tall.png", tmp_path / "words.txt"
    Image.fromarray(np.random.randint(0, 256, (900, 50, 3), np.uint8)).save(image)
    words.write_text("sofa / couch\nsea\n")
    arguments = ["--config-file", config_file, "--weights", checkpoints[0], checkpoints[0]]
    arguments += ["--vocabulary", words, "--images", image, "--output", tmp_path / "out"]
    problem, _ = run("visualize_prompts", *arguments)
    assert not problem
    content = json.loads((tmp_path / "out" / "prompts.json").read_text())
    assert [entry["name"] for entry in content["checkpoints"]] == ["runs/model_4.pth"] * 2
    assert "purity" not in content["checkpoints"][0]
    assert not list((tmp_path / "out").glob("usage_*"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--dataset", "no_such_set"], "'no_such_set' is not registered"),
        (["--dataset", DATASET, "--images", "gone.jpg"], "'gone.jpg' does not exist"),
        (["--dataset", DATASET, "--weights", "gone.pth"], "'gone.pth' does not exist"),
        (["--dataset", DATASET, "--max-images", "0"], "0 images"),
        (["--dataset", DATASET, "--images", __file__], "cannot be read as an image"),
        ([], "a vocabulary and images must be given"),
    ],
)
def test_what_cannot_be_shown_is_said_at_once(
    run, config_file, dataset, checkpoints, tmp_path, arguments, problem
):
    output = tmp_path / "prompts"
    given = ["--config-file", config_file, "--weights", checkpoints[0], "--output", output]
    said, _ = run("visualize_prompts", *given, *arguments)
    assert problem in said
    assert not output.exists()


def test_results_stand_next_to_the_labels(run, config_file, dataset, checkpoints, tmp_path):
    output = tmp_path / "results" / "page.png"
    arguments = ["--config-file", config_file, "--weights", checkpoints[0], "--dataset", dataset]
    problem, printed = run("visualize_results", *arguments, "--output", output)
    assert not problem and str(output) in printed
    assert Image.open(output).width == 5 * 180
    size = Image.open(output).height
    chosen = ["--images", Path(DatasetCatalog.get(dataset)[1]["file_name"]).name]
    assert not run("visualize_results", *arguments, "--output", output, *chosen)[0]
    assert Image.open(output).height < size


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--dataset", "no_such_set"], "'no_such_set' is not registered"),
        (["--dataset", DATASET, "--weights", "gone.pth"], "'gone.pth' does not exist"),
        (["--dataset", DATASET, "--num-images", "0"], "0 images"),
        (["--dataset", DATASET, "--images", "x.jpg"], "no image 'x.jpg'; it has, .* 0.jpg"),
    ],
)
def test_results_that_cannot_be_drawn(
    run, config_file, dataset, checkpoints, tmp_path, arguments, problem
):
    output = tmp_path / "results" / "page.png"
    given = ["--config-file", config_file, "--weights", checkpoints[0], "--output", output]
    said, _ = run("visualize_results", *given, *arguments)
    assert re.search(problem, said)
    assert not output.exists()


def test_prompts_of_a_model_of_the_zoo(run, config_file, checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(model_zoo, "_MODELS", dict(model_zoo._MODELS))
    model_zoo.register_model("rooms", str(config_file), str(checkpoints[0]))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    given = ["--vocabulary", "cityscapes_19", "--images", tmp_path / "a.jpg"]
    assert not run("visualize_prompts", "--weights", "rooms", *given, "--output", tmp_path)[0]
    assert (tmp_path / "prompts.json").exists()


def test_a_model_without_a_checkpoint_has_no_prompts(run, tmp_path):
    for tool in ("export_prompts", "visualize_prompts"):
        said, _ = run(tool, "--weights", "toy", "--output", tmp_path / "out")
        assert "'toy'" in said and "checkpoint" in said


def test_prompts_of_another_text_encoder_are_not_exported(run, config_file, checkpoints, tmp_path):
    given = ["--config-file", config_file, "--output", tmp_path / "words"]
    said, _ = run("export_prompts", *given, "--weights", checkpoints[0])
    assert "not that of Stable Diffusion 1.x" in said
    assert "configs/pixelclip_vitl14.yaml" in said
    said, _ = run("export_prompts", *given, "--weights", "gone.pth")
    assert "gone.pth" in said
    assert not (tmp_path / "words").exists()
