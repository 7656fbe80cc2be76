"""Inputs get places of their own; their files hold the predictions; a run can be resumed."""

import dataclasses
import functools
import http.server
import json
import os
import threading
import tracemalloc
from pathlib import PurePath

import cli
import cv2
import numpy as np
import predict as tool
import pytest
import torch
from PIL import Image

from pixelclip import Predictor
from pixelclip.data.images import ImageReadError
from pixelclip.engine import setup
from pixelclip.inference import files as prediction_files
from pixelclip.inference.files import (
    PredictionSettings,
    _ResultWriter,
    find_inputs,
    find_prediction_status,
    predict_camera,
    predict_files,
)
from pixelclip.inference.result import ClassShare, Prediction
from pixelclip.inference.video import Frame, VideoSource, write_video
from pixelclip.utils.shards import Shard

NAMES = ["sky", "stone", "car"]
CONFIG = "configs/demo/toy.yaml"


@pytest.fixture(scope="module")
def toy_predictor():
    return Predictor.from_config(CONFIG, overrides=("MODEL.DEVICE", "cpu"))


@pytest.fixture
def builds(toy_predictor, monkeypatch):
    """How often a predictor was built; it is always the same one."""
    calls = []

    def build(*arguments):
        calls.append(arguments)
        return toy_predictor

    monkeypatch.setattr(Predictor, "from_config", build)
    return calls


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two images of one name, and a file that is not an image."""
    monkeypatch.chdir(tmp_path)
    for index, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        pixels = np.random.default_rng(index).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / folder / "a.jpg")
    (tmp_path / "two" / "bad.jpg").write_bytes(b"not an image")
    return tmp_path


@pytest.fixture
def settings(tmp_path):
    return PredictionSettings(NAMES, tmp_path / "out", CONFIG, overrides=("MODEL.DEVICE", "cpu"))


def write_clip(path, frames=6):
    generator = np.random.default_rng(0)
    with write_video(path, 10) as target:
        for _ in range(frames):
            target.add(generator.integers(0, 256, (40, 60, 3), np.uint8))


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def result_of(settings, name):
    return json.loads((settings.output / f"{name}_classes.json").read_bytes())


def test_each_image_has_overlay_labels_and_result(photos, settings, builds, toy_predictor):
    report = predict_files(["."], settings)
    assert (report.written, report.kept) == (2, 0)
    assert list(report.problems) == ["two/bad.jpg"]
    assert "image in one of the formats" in report.problems["two/bad.jpg"]
    suffixes = ("classes.json", "labels.png", "overlay.jpg")
    expected_files = [f"{folder}/a_{suffix}" for folder in ("one", "two") for suffix in suffixes]
    assert files_below(settings.output) == [*expected_files, "two/bad_classes.json"]
    assert "image in one of the formats" in result_of(settings, "two/bad")["problem"]
    assert {str(path.relative_to(settings.output)) for path in report.files} == set(expected_files)
    for name in ("one/a", "two/a"):
        expected = toy_predictor(photos / f"{name}.jpg", NAMES)
        labels = Image.open(settings.output / f"{name}_labels.png")
        assert labels.mode == "P"
        assert np.array_equal(np.asarray(labels), expected.labels.numpy())
        result = result_of(settings, name)
        assert (result["width"], result["height"], result["names"]) == (60, 40, NAMES)
        assert result["classes"] == [dataclasses.asdict(share) for share in expected.shares]
        overlay = Image.open(settings.output / f"{name}_overlay.jpg")
        assert overlay.size == expected.draw().size


def test_file_names_need_not_be_text(photos, settings, builds, capsys):
    name = os.fsdecode(b"\xff")
    (photos / "one" / "a.jpg").rename(photos / "one" / f"{name}.jpg")
    for bad in (b"\xfe.jpg", b"\xfe.mp4"):
        (photos / "one" / os.fsdecode(bad)).write_bytes(b"neither image nor video")
    report = predict_files(["one", "two/a.jpg"], settings)
    assert (report.written, len(report.problems)) == (2, 2)
    assert result_of(settings, name)["file"]["path"] == f"one/{name}.jpg"
    assert list(report.problems) == ["one/\\udcfe.jpg", "one/\\udcfe.mp4"]
    assert "".join(report.problems.values()).isascii()
    assert predict_files(["one"], settings).kept == 1


def test_names_in_any_script_are_read_back(photos, settings, builds):
    predict_files(["one"], dataclasses.replace(settings, vocabulary=["ciel bleué", "空"]))
    assert result_of(settings, "a")["names"] == ["ciel bleué", "空"]


def test_finished_results_are_kept_until_something_changes(photos, settings, builds):
    predict_files(["one", "two"], settings)
    stamp = (settings.output / "a_labels.png").stat().st_mtime_ns
    again = predict_files(["one", "two/a.jpg"], settings)
    assert (again.written, again.kept, again.problems, again.files) == (0, 2, {}, [])
    assert (settings.output / "a_labels.png").stat().st_mtime_ns == stamp
    assert len(builds) == 1
    (settings.output / "a_classes.json").write_text('{"made_with": 3')
    assert predict_files(["one"], settings).written == 1
    Image.new("RGB", (30, 20)).save(photos / "one" / "a.jpg")
    assert predict_files(["one"], settings).written == 1
    assert result_of(settings, "a")["width"] == 30
    for change in (
        {"vocabulary": ["sky", "car"]},
        {"background_threshold": 0.2},
        {"overrides": (*settings.overrides, "TEST.FLIP", "True")},
    ):
        assert predict_files(["one"], dataclasses.replace(settings, **change)).written == 1, change


def test_shards_write_what_a_single_process_writes(photos, settings, builds):
    alone = dataclasses.replace(settings, output=photos / "alone")
    predict_files(["one", "two"], alone)
    reports = [predict_files(["one", "two"], settings, Shard(index, 3)) for index in range(3)]
    assert sum(report.written for report in reports) == 2
    assert [path for report in reports for path in report.problems] == ["two/bad.jpg"]
    assert files_below(settings.output) == files_below(alone.output)
    for name in files_below(alone.output):
        assert (settings.output / name).read_bytes() == (alone.output / name).read_bytes()
    status = find_prediction_status(["one", "two"], settings)
    assert status.is_complete
    assert "3 of 3 done (1 with problems), 0 left" in status.describe()
    other = dataclasses.replace(settings, vocabulary=["sky"])
    assert "0 of 3 done, 3 left" in find_prediction_status(["one", "two"], other).describe()
    assert predict_files(["one", "two"], settings).kept == 2


def test_a_status_loads_no_model(photos, settings, monkeypatch):
    monkeypatch.setattr(Predictor, "from_config", lambda *_: pytest.fail("a model was built"))
    assert not find_prediction_status(["one"], settings).is_complete
    assert not settings.output.exists()


def test_shards_of_one_machine_use_different_gpus(photos, settings, builds, monkeypatch):
    used = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    for index in range(4):
        predict_files(["one"], settings, Shard(index, 8, index, 4))
    predict_files(["one"], settings, Shard(1, 8))
    assert used == [0, 1, 0, 1]


def test_an_interrupted_run_is_resumed(photos, settings, builds, toy_predictor, monkeypatch):
    real = toy_predictor.model.score_images
    calls = []

    def interrupt_second(inputs):
        calls.append(inputs)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(inputs)

    monkeypatch.setattr(toy_predictor.model, "score_images", interrupt_second)
    with pytest.raises(KeyboardInterrupt):
        predict_files(["one", "two"], settings)
    assert not (settings.output / "a_2_classes.json").exists()
    report = predict_files(["one", "two"], settings)
    assert (report.written, report.kept, len(report.problems)) == (1, 1, 1)


def test_a_killed_run_with_other_words_leaves_no_wrong_result(
    photos, settings, builds, monkeypatch
):
    predict_files(["one"], settings)
    expected = (settings.output / "a_labels.png").read_bytes()

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_ResultWriter, "write_result", kill)
        with pytest.raises(KeyboardInterrupt):
            predict_files(["one"], dataclasses.replace(settings, vocabulary=["sky", "car"]))
    assert predict_files(["one"], settings).written == 1
    assert (settings.output / "a_labels.png").read_bytes() == expected


def test_machines_may_download_the_weights_at_different_times(
    photos, settings, builds, monkeypatch
):
    settings = dataclasses.replace(settings, weights="someone/rooms")
    kept = []
    for machine, content in (("first", "hash"), ("second", "hash"), ("third", "other_hash")):
        (photos / machine).mkdir()
        (photos / machine / content).touch()
        os.utime(photos / machine / content, (len(kept), len(kept)))
        (photos / machine / "model.safetensors").symlink_to(content)
        path = str(photos / machine / "model.safetensors")
        for module in (setup, prediction_files):
            monkeypatch.setattr(module, "fetch_weights", lambda _, path=path: path)
        kept.append(predict_files(["one"], settings).kept)
    assert kept == [0, 1, 0]


def test_more_than_255_classes_have_labels_of_16_bits(photos, settings, builds):
    words = [f"word {number}" for number in range(300)]
    predict_files(["one"], dataclasses.replace(settings, vocabulary=words))
    found = result_of(settings, "a")["classes"][0]["index"]
    words[found], words[299] = words[299], words[found]
    predict_files(["one"], dataclasses.replace(settings, vocabulary=words))
    labels = Image.open(settings.output / "a_labels.png")
    assert labels.mode.startswith("I")
    assert np.asarray(labels).max() == 299
    used = {share["index"] for share in result_of(settings, "a")["classes"]}
    assert set(np.unique(np.asarray(labels))) == used


def test_bad_settings_are_refused_before_anything_is_written(photos, settings, builds):
    for change, problem in [
        ({"vocabulary": []}, "empty"),
        ({"vocabulary": "nowhere.txt"}, "neither a file"),
        ({"vocabulary": ["word " * 90]}, "does not fit"),
        ({"vocabulary": ["sky", "Sky"]}, "twice"),
        ({"background_threshold": 7.0}, "cosine"),
        ({"frame_step": 0}, "frame step"),
        ({"weights": "nowhere.pth"}, r"nowhere\.pth"),
        ({"config_file": "nowhere.yaml"}, r"nowhere\.yaml"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=problem):
            predict_files(["one"], dataclasses.replace(settings, **change))
        assert not settings.output.exists()


def test_a_result_that_cannot_be_written_stops_the_run(photos, settings, builds):
    settings.output.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="out"):
        predict_files(["one"], settings)


def test_videos_give_videos_of_overlays(photos, settings, builds, toy_predictor):
    write_clip(photos / "clip.mp4")
    report = predict_files(["clip.mp4"], dataclasses.replace(settings, frame_step=2))
    assert (report.written, report.problems) == (1, {})
    result = result_of(settings, "clip")
    assert [frame["seconds"] for frame in result["frames"]] == [0, 0.2, 0.4]
    with VideoSource(photos / "clip.mp4") as source:
        expected = toy_predictor(next(iter(source)).pixels, NAMES)
    assert result["frames"][0]["classes"] == [dataclasses.asdict(s) for s in expected.shares]
    with VideoSource(settings.output / "clip_overlay.mp4") as source:
        shapes = {frame.pixels.shape for frame in source}
        assert source.rate == 5
    [(height, width, _)] = shapes
    assert height > 40  # the legend
    assert width >= 60
    assert predict_files(["clip.mp4"], dataclasses.replace(settings, frame_step=2)).kept == 1


@pytest.mark.slow
def test_the_memory_of_a_long_video_stays_small(settings, builds, tmp_path, monkeypatch):
    shares = tuple(ClassShare(index, NAMES[index], 1 / 3, 0.1 + index / 7) for index in range(3))
    pixels = np.zeros((2, 2, 3), np.uint8)
    shown = Prediction(pixels, tuple(NAMES), torch.zeros(2, 2), torch.zeros(2, 2), None, None)
    monkeypatch.setattr(Prediction, "shares", shares)
    monkeypatch.setattr(Prediction, "draw_frame", lambda _: pixels)
    monkeypatch.setattr(prediction_files._ResultWriter, "_predict", lambda *_: shown)
    writer = prediction_files._ResultWriter(settings, [])
    tracemalloc.start()
    try:
        frames = (Frame(pixels, number / 25) for number in range(2000))
        result = writer.write_frames(PurePath("long"), frames, 25)
        writer.write_result(PurePath("long"), result)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2000 * 600, "bytes; as dictionaries and one text it was 4400 a frame"
    written = result_of(settings, "long")["frames"]
    assert len(written) == 2000
    assert written[-1] == {
        "seconds": 1999 / 25,
        "classes": [dataclasses.asdict(share) for share in shares],
    }


def test_corrupt_videos_are_reported_each_time(photos, settings, builds, monkeypatch):
    (photos / "bad.mp4").write_bytes(b"no video")
    report = predict_files(["bad.mp4"], settings)
    assert (report.written, len(report.problems)) == (0, 1)
    write_clip(photos / "clip.mp4")
    real = VideoSource.__iter__
    monkeypatch.setattr(VideoSource, "__iter__", lambda s: (f for f in real(s) if f.seconds < 0.3))
    for _ in range(2):
        report = predict_files(["clip.mp4"], settings)
        assert report.written == 1
        assert "3 of 6 frames" in report.problems["clip.mp4"]
    assert len(result_of(settings, "clip")["frames"]) == 3
    monkeypatch.setattr(VideoSource, "__iter__", lambda _: iter(()))
    report = predict_files(["clip.mp4"], dataclasses.replace(settings, output=photos / "other"))
    assert "no frame that can be read" in report.problems["clip.mp4"]
    assert (report.files, files_below(photos / "other")) == ([], ["clip_classes.json"])


@pytest.fixture
def camera(photos, monkeypatch):
    """A camera that shows a clip indefinitely."""
    write_clip(photos / "shown.mp4", 3)
    real = cv2.VideoCapture

    class Camera:
        def __init__(self, source):
            self._is_file = isinstance(source, str)
            self._real = real(source if self._is_file else str(photos / "shown.mp4"))
            self._is_there = self._is_file or source == 0

        def isOpened(self):  # noqa: N802
            return self._is_there

        def read(self):
            is_read, frame = self._real.read()
            if not is_read and not self._is_file:
                self._real = real(str(photos / "shown.mp4"))
                is_read, frame = self._real.read()
            return is_read, frame

        def __getattr__(self, name):
            return getattr(self._real, name)

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    return real


def test_a_camera_is_labeled_until_time_is_up(settings, builds, camera, monkeypatch):
    assert predict_camera(0, settings, seconds=0.75).written == 1
    frames = result_of(settings, "camera_0")["frames"]
    assert [round(frame["seconds"], 6) for frame in frames] == [n / 10 for n in range(8)]
    monkeypatch.setattr(cv2, "VideoCapture", camera)
    with VideoSource(settings.output / "camera_0_overlay.mp4") as source:
        assert len(list(source)) == 8
    with pytest.raises(ImageReadError, match="camera 4 cannot be opened"):
        predict_camera(4, settings)


def test_ctrl_c_ends_a_camera_s_video(settings, builds, camera, toy_predictor, monkeypatch):
    real = toy_predictor.model.score_images
    calls = []

    def interrupt(inputs):
        calls.append(inputs)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(inputs)

    monkeypatch.setattr(toy_predictor.model, "score_images", interrupt)
    assert predict_camera(0, settings).written == 1
    assert len(result_of(settings, "camera_0")["frames"]) == 3


def run(*arguments):
    return cli.main(["predict", *arguments])


def test_the_command_line(photos, settings, builds, capsys):
    arguments = ["--config-file", CONFIG, "--output", "out", "--words", ", ".join(NAMES)]
    assert run("one", *arguments) == 0
    wrote = "wrote out/a_overlay.jpg, out/a_labels.png, out/a_classes.json"
    assert capsys.readouterr().out == f"1 labeled; {wrote}\n"
    assert run("one", "two", *arguments) == 1
    captured = capsys.readouterr()
    assert "1 labeled, 1 labeled before, 1 with problems; wrote out/a_2_overlay" in captured.out
    assert "problem: two/bad.jpg is n" in captured.err
    Image.new("RGB", (6000, 1)).save(photos / "narrow.png")
    assert run("narrow.png", *arguments) == 1
    captured = capsys.readouterr()
    assert "problem: narrow.png: the image is 6000 x 1 pixels" in captured.err
    assert captured.out == "0 labeled, 1 with problems; results in out\n"
    background = ["--background-threshold", "0.99", "--opts", "TEST.FLIP", "True"]
    assert run("one", *arguments, *background) == 0
    assert result_of(settings, "a")["classes"][0]["name"] == "background"
    (photos / "names.txt").write_text("sky\ncar / bus\n")
    assert run("one", *arguments[:4], "--vocabulary", "names.txt") == 0
    assert result_of(settings, "a")["names"] == ["sky", "car, bus"]
    for number in range(3):
        Image.new("RGB", (60, 40)).save(photos / "one" / f"{number}.jpg")
    capsys.readouterr()
    assert run("one", *arguments) == 0
    assert capsys.readouterr().out == "4 labeled; wrote 12 files in out\n"


def test_a_shard_with_problems_or_without_files_ends_well(photos, builds, capsys):
    arguments = ["two", "--config-file", CONFIG, "--output", "out", "--words", ", ".join(NAMES)]
    assert run(*arguments, "--status") == 1
    for shard in ("1/3", "2/3", "3/3"):
        assert run(*arguments, "--shard", shard) == 0
        assert f"shard {shard}: " in capsys.readouterr().out
    assert run(*arguments, "--status") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("problem: two/bad.jpg is not an image")
    assert printed.endswith("2 of 2 done (1 with problems), 0 left\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg", "--words", "sky"], "error: 'nowhere.jpg' is not a file"),
        (["one", "--words", "sky, sky"], "error: Given twice: 'sky'"),
        (["one", "--words", ","], "error: The list of class names is empty"),
    ],
)
def test_mistakes_are_said_in_a_sentence(photos, builds, capsys, arguments, message):
    assert run(*arguments, "--weights", "toy") == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("swallowed", ["two/a.jpg", "gone.png", "https://example.org/a"])
def test_an_input_that_was_taken_for_a_word_is_named(photos, capsys, swallowed):
    for inputs in ([], ["one"]):
        with pytest.raises(SystemExit):
            run(*inputs, "--words", "sky", swallowed)
        assert f"--words took {swallowed!r} for a word" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--words", "sky")
    assert "or a --camera" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--words", "sky", "one"], ["two", "--words", "./one"]])
def test_a_folder_that_was_taken_for_a_word_is_named(photos, capsys, arguments):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert f"--words took {arguments[-1]!r} for a word" in capsys.readouterr().err


def test_words_may_be_longer_than_a_file_name(photos, settings, builds):
    words = [f"word {number}" for number in range(60)]
    arguments = ["--config-file", CONFIG, "--output", "out", "--words", ", ".join(words)]
    assert run("one", *arguments) == 0
    (photos / "sky").mkdir()  # a folder of images of the sky
    assert run("one", *arguments[:4], "--words", "sky") == 0
    assert result_of(settings, "a")["names"] == ["sky"]


def test_an_image_may_be_given_by_its_address(photos, settings, builds, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/one/a.jpg"
        report = predict_files([address, f"{address[:-5]}b.jpg"], settings)
        assert predict_files([address], settings).kept == 1
        server.shutdown()
    assert report.written == 1
    assert "cannot be downloaded: HTTP Error 404" in report.problems[f"{address[:-5]}b.jpg"]
    predict_files(["one"], dataclasses.replace(settings, output=tmp_path / "same"))
    files = [folder / "a_labels.png" for folder in (settings.output, tmp_path / "same")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_words_that_the_clip_never_learned_are_warned_of(photos, settings, builds, caplog):
    predict_files(["one"], dataclasses.replace(settings, vocabulary=["sky", "sofa, couch"]))
    assert "tiny CLIP" in caplog.text
    assert "never learned 'sofa', 'couch'" in caplog.text


def test_the_command_line_has_the_defaults_of_the_settings():
    options = vars(tool._parser().parse_args(["--words", "sky"]))
    settings = {f.name: f.default for f in dataclasses.fields(PredictionSettings)}
    names = settings.keys() & options.keys() - {"vocabulary", "output"}
    assert len(names) == 5
    assert {name: options[name] for name in names} == {name: settings[name] for name in names}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        *("one/a.jpg", "one/deep/a.jpg", "two/a.jpg", "two/a.PNG", "two/.hidden.jpg"),
        *("two/notes.txt", "two/clip.MP4", "two/.git/x.jpg"),
        *("out/a_overlay.jpg", "out/a_labels.png", "out/a_classes.json"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names_of(inputs):
    return [str(one.name) for one in inputs]


def test_folders_are_searched_and_results_are_left_out(tree):
    inputs = find_inputs(["."], "out")
    expected = ["one/a", "one/deep/a", "two/a.PNG", "two/a.jpg", "two/clip"]
    assert names_of(inputs) == expected
    assert [one.is_video for one in inputs] == [False] * 4 + [True]
    assert len(find_inputs(["**/*.jpg"], tree / "out")) == 3
    with pytest.raises(FileNotFoundError, match="folder of images"):
        find_inputs(["out/*"], "out/../out")
    assert names_of(find_inputs(["out/*.png"], "elsewhere")) == ["a_labels"]
    (tree / "out" / "a_classes.json").unlink()
    assert names_of(find_inputs(["out"], "out")) == ["a_labels", "a_overlay"]


def test_no_result_replaces_an_input(tree):
    (tree / "one" / "a_labels.png").touch()  # labels that a person has drawn
    for output in ("one", "two/../one"):
        with pytest.raises(FileExistsError, match=r"one/a_labels\.png would be replaced"):
            find_inputs(["one"], output)
    assert len(find_inputs(["one"], "one/out")) == 3


def test_results_next_to_their_images_are_not_labeled_by_the_same_command(tree):
    names = ("a_overlay.jpg", "a_labels.png", "a_classes.json")
    for name in names:
        (tree / "one" / name).touch()
    paths = [f"one/{name}" for name in ("a.jpg", *names)]  # of the shell's one/*
    assert names_of(find_inputs(paths, "one")) == ["a"]


def test_each_file_is_taken_once_in_the_order_given(tree):
    (tree / "link.jpg").symlink_to(tree / "two" / "a.jpg")
    patterns = ["two/a.jpg", "one", str(tree / "one" / "a.jpg"), "t?o/*.jpg", "link.jpg"]
    assert names_of(find_inputs(patterns, "out")) == ["a", "a_2", "deep/a"]


def test_results_have_the_inputs_names_wherever_these_lie(tree, monkeypatch):
    monkeypatch.chdir(tree / "one")
    for pattern in ("a.jpg", "../two/a.jpg", str(tree / "two" / "a.jpg"), "../t*/a.jpg"):
        (one,) = find_inputs([pattern], "out")
        assert one.name == PurePath("two/a" if "*" in pattern else "a")
    assert names_of(find_inputs([str(tree / "two")], "out")) == ["a.PNG", "a.jpg", "clip"]


def test_addresses_are_named_by_their_last_part():
    addresses = ["https://x.org/b/sky%20line.jpg?size=2", "https://x.org", "https://x.org/b/"]
    assert names_of(find_inputs(addresses, "out")) == ["sky line", "image", "b"]


def test_no_two_inputs_share_a_place(tree):
    for name in ("a", "a.jpg", "a.png", "a.jpg.png", "a.b.jpg"):
        (tree / "one" / name).touch()
    inputs = find_inputs(["one", "one/a"], "out")
    assert len({one.name for one in inputs}) == len(inputs) == 6


def test_inputs_of_one_name_are_numbered(tmp_path):
    paths = [tmp_path / str(number) / "a.jpg" for number in range(300)]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    assert names_of(find_inputs(paths, "out")) == ["a", *(f"a_{n}" for n in range(2, 301))]


def test_no_two_results_are_one_file_where_case_does_not_count(tree):
    for name in ("B.jpg", "b.png", "c.jpg", "C.jpg", "c.JPG", "c.jpg_"):
        (tree / "one" / name).touch()
    inputs = find_inputs(["one", "one/c.jpg_"], "out")
    names = names_of(inputs)
    assert len(inputs) == 8
    assert len({name.casefold() for name in names}) == 8, names
    assert {"B.jpg", "b.png"} < set(names)


def test_a_named_file_may_have_any_suffix(tree):
    assert names_of(find_inputs(["two/notes.txt"], "out")) == ["notes"]


@pytest.mark.parametrize("pattern", ["nowhere.jpg", "nothing/*.jpg", "empty", "out"])
def test_what_fits_nothing_is_named(tree, pattern):
    (tree / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=pattern.replace("*", r"\*")):
        find_inputs(["one", pattern], "out")
