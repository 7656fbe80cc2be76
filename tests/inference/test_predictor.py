"""The Predictor labels as the evaluation does, no matter how it is given an image."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from PIL import Image

from pixelclip import Predictor
from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.checkpoint.saved_config import dump_config
from pixelclip.data.vocabularies import get_vocabulary
from pixelclip.engine import Trainer
from pixelclip.evaluation.evaluators import LabelMapModel
from pixelclip.inference.predictor import load_predictor_config
from pixelclip.modeling import text_classifier
from pixelclip.modeling.text_classifier import Background

from ..conftest import register_test_set, unregister_test_set

NAMES = ["sky", "sofa, couch", "traffic light"]
TEST_SET = "images_to_predict"


@pytest.fixture(scope="module")
def image_paths(tmp_path_factory):
    """Paths of three registered images."""
    folder = tmp_path_factory.mktemp("images") / "set"
    register_test_set(folder, TEST_SET)
    yield sorted(folder.glob("*.jpg"))
    unregister_test_set(TEST_SET)


@pytest.fixture
def config(tiny_config):
    tiny_config.INPUT.MIN_SIZE_TEST = 50
    tiny_config.INPUT.MAX_SIZE_TEST = 60
    tiny_config.DATALOADER.NUM_WORKERS = 0
    return tiny_config


@pytest.fixture
def predictor(config):
    torch.manual_seed(0)
    return Predictor.from_config(config)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["TEST.INFERENCE_MODE", "keep_aspect", "TEST.FLIP", True],
        ["TEST.INFERENCE_MODE", "sliding_window", "TEST.WINDOW_SIZE", 32, "TEST.WINDOW_STRIDE", 20],
        ["TEST.IMS_PER_BATCH", 2],
        ["MODEL.PIXELCLIP.TEST_MASKS", "superpixels"],
    ],
    ids=["whole", "keep_aspect", "sliding_window", "batches", "superpixels"],
)
def test_labels_are_those_of_the_evaluation(config, image_paths, overrides):
    config.merge_from_list(overrides)
    predictor = Predictor.from_config(config)
    evaluated = copy.deepcopy(predictor.model)
    evaluated.set_vocabulary(NAMES)
    predictions = predictor(image_paths, NAMES)
    loader = Trainer.build_test_loader(config, TEST_SET)
    expected = [(x, y) for batch in loader for x, y in zip(batch, evaluated(batch), strict=True)]
    label_maps = [y["labels"] for batch in loader for y in LabelMapModel(evaluated)(batch)]
    assert len(predictions) == len(expected) == 3
    for prediction, (inputs, output), labels in zip(predictions, expected, label_maps, strict=True):
        assert prediction.labels.dtype == torch.int64
        assert prediction.labels.shape == (inputs["height"], inputs["width"]) == (30, 40)
        assert torch.equal(prediction.labels, labels.long())
        assert torch.equal(prediction.similarity, output["sem_seg"])
        assert torch.equal(prediction.best_similarity, output["sem_seg"].amax(dim=0))


def test_every_kind_of_image_gives_the_same(predictor, image_paths):
    pixels = read_image(str(image_paths[0]), "RGB")
    expected = predictor(image_paths[0], NAMES)
    assert np.array_equal(expected.image, pixels)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for image in (str(image_paths[0]), Image.open(image_paths[0]), pixels, tensor, tensor.float()):
        prediction = predictor(image, NAMES)
        assert torch.equal(prediction.similarity, expected.similarity), type(image)
    for image in (pixels[:, :, ::-1], tensor.flip(0)):
        prediction = predictor(image, NAMES, channel_order="BGR")
        assert np.array_equal(prediction.image, pixels)
        assert torch.equal(prediction.similarity, expected.similarity), type(image)
    as_rgb = predictor(pixels[:, :, ::-1], NAMES)
    assert not torch.equal(as_rgb.similarity, expected.similarity)


def test_one_image_in_one_out_and_a_list_for_a_list(predictor, image_paths):
    one = predictor(image_paths[1], NAMES)
    for images in (list(image_paths), tuple(image_paths)):
        several = predictor(images, NAMES)
        assert isinstance(several, list)
        assert torch.equal(several[1].labels, one.labels)
    assert predictor([], NAMES) == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_as_detectron2_turns_them(predictor, tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    expected = read_image(str(path), "RGB")
    for image in (path, Image.open(path)):
        prediction = predictor(image, NAMES)
        assert np.array_equal(prediction.image, expected)
        assert prediction.labels.shape == expected.shape[:2]


def test_text_features_are_computed_once_for_each_vocabulary(predictor, image_paths, monkeypatch):
    computed = []
    build = text_classifier.build_text_classifier

    def count(encoder, names, templates):
        computed.append(names)
        return build(encoder, names, templates)

    monkeypatch.setattr(text_classifier, "build_text_classifier", count)
    for names in (NAMES, ["cat"], NAMES, ["cat"], NAMES):
        predictor(image_paths, names)
    assert computed == [tuple(NAMES), ("cat",)]
    for number in range(40):
        predictor(image_paths[0], [f"word {number}"])
    assert len(predictor.model.text_classifier._cache) < 20


def test_a_config_for_a_gpu_is_taken_without_one(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config.MODEL.DEVICE = "cuda"
    predictor = Predictor.from_config(config)
    assert predictor.model.device.type == "cpu"


def test_names_may_lie_in_a_file_or_be_packaged(predictor, image_paths, tmp_path):
    (tmp_path / "names.txt").write_text("sky\n\n  sofa/couch \r\ntraffic light", "utf-8")
    from_file = predictor(image_paths[0], tmp_path / "names.txt")
    assert from_file.names == tuple(NAMES)
    assert torch.equal(from_file.similarity, predictor(image_paths[0], NAMES).similarity)
    packaged = predictor(image_paths[0], "cityscapes_19_synonyms")
    assert packaged.names == get_vocabulary("cityscapes_19_synonyms")
    assert "vegetation, tree" in ", ".join(packaged.names)


def test_background_is_the_model_s(predictor, image_paths):
    model = copy.deepcopy(predictor.model)
    threshold = float(predictor(image_paths[0], NAMES).best_similarity.median())
    for given in (Background(threshold), Background(words=("sea", "sand"))):
        prediction = predictor(
            image_paths[0],
            NAMES,
            background_threshold=given.threshold,
            background_words=given.words,
        )
        assert prediction.names == (*NAMES, "background")
        assert prediction.background_index == 3
        model.text_classifier.background = given
        model.set_vocabulary(prediction.names, background_index=3)
        image = predictor._model_input(prediction.image)
        assert torch.equal(prediction.similarity, model([image])[0]["sem_seg"])
    by_threshold = predictor(image_paths[0], NAMES, background_threshold=threshold)
    assert by_threshold.shares[0].name == "background"
    assert by_threshold.shares[0].share == pytest.approx(0.5, abs=0.01)
    # It belongs to that one prediction.
    assert predictor(image_paths[0], NAMES).names == tuple(NAMES)


def test_background_of_the_config_and_among_the_names(config, image_paths):
    config.TEST.BACKGROUND_THRESHOLD = 0.9
    torch.manual_seed(0)
    predictor = Predictor.from_config(config)
    first = predictor(image_paths[0], ["background", *NAMES])
    assert (first.names[0], first.background_index) == ("background", 0)
    assert predictor(image_paths[0], NAMES).names == (*NAMES, "background")
    plain = predictor(image_paths[0], NAMES, background_threshold=-1)
    assert plain.names == tuple(NAMES)
    assert plain.background_index is None


def test_the_model_keeps_a_background_when_weights_change(predictor, image_paths):
    options = {"background_threshold": 0.9}
    expected = predictor(image_paths[0], NAMES, **options).similarity
    predictor.model.load_state_dict(predictor.model.state_dict())
    scored = predictor.model.inference([predictor._model_input(read_image(str(image_paths[0])))])
    assert scored[0]["sem_seg"].shape == expected.shape
    assert (scored[0]["sem_seg"][-1] == expected[-1]).all()


def test_threads_get_what_one_alone_gets(predictor, image_paths):
    vocabularies = [NAMES, ["cat"], ["sea", "sand", "wall", "dog"], NAMES[::-1]]
    options = [{}, {"background_threshold": 0.1}]
    work = [(p, v, o) for p in image_paths for v in vocabularies for o in options] * 2
    expected = [predictor(p, v, **o).similarity for p, v, o in work]
    other = Predictor(predictor.model, 50, 60)  # shares the model
    start = threading.Barrier(8)

    def run(number):
        start.wait()
        mine = predictor if number % 2 else other
        order = np.random.default_rng(number).permutation(len(work))
        return {i: mine(work[i][0], work[i][1], **work[i][2]).similarity for i in order}

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(run, range(8)):
            assert all(torch.equal(results[i], value) for i, value in enumerate(expected))


def test_from_config_finds_our_configs_from_any_folder(tmp_path, monkeypatch, image_paths):
    monkeypatch.chdir(tmp_path)
    overrides = ("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64")
    predictor = Predictor.from_config("configs/demo/toy.yaml", overrides=overrides)
    assert predictor(image_paths[0], "toy_scenes_20").labels.shape == (30, 40)
    assert predictor.model.image_encoder.dense_path.__name__ == "naclip"
    with pytest.raises(FileNotFoundError, match=r"'configs/none.yaml'.*configs/demo/toy\.yaml"):
        Predictor.from_config("configs/none.yaml")


def test_a_checkpoint_brings_its_config(config, predictor, image_paths, tmp_path):
    config.MODEL.CLIP.RESOLUTION = (64, 96)
    config.OUTPUT_DIR = "/nowhere"
    config.DATASETS.TEST = ("gone_sem_seg",)
    checkpointer = PixelCLIPCheckpointer(
        predictor.model, str(tmp_path), config=dump_config(config)
    )
    checkpointer.save("model")
    expected = Predictor.from_config(config, tmp_path / "model.pth")(image_paths[0], NAMES)
    for built in (
        Predictor(tmp_path / "model.pth"),
        Predictor.from_pretrained(str(tmp_path / "model.pth")),
        Predictor.from_config(weights=tmp_path / "model.pth"),
    ):
        assert (built.min_size, built.max_size) == (50, 60)
        assert torch.equal(built(image_paths[0], NAMES).similarity, expected.similarity)
    assert Predictor(tmp_path / "model.pth", max_size=70).max_size == 70


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ("nope.jpg", r"'nope\.jpg' is an image, .*from_pretrained\(\"pixelclip_vitb16\"\)"),
        ("nope.pth", r"'nope\.pth' does not exist"),
        (__file__, "not a checkpoint"),
    ],
)
def test_what_is_no_model_is_refused(weights, problem):
    with pytest.raises((ValueError, OSError), match=problem):
        Predictor(weights)


def test_weights_among_the_overrides_are_not_replaced_by_the_default_model():
    cfg = load_predictor_config("", "", ("MODEL.WEIGHTS", "toy", "TEST.FLIP", "True"))
    assert (cfg.MODEL.CLIP.ARCH, cfg.MODEL.WEIGHTS, cfg.TEST.FLIP) == ("toy", "", True)


def test_a_predictor_says_what_it_is(predictor):
    sizes = "min_size=50, max_size=60, batch_size=1"
    assert repr(predictor) == f"Predictor(VisionTransformer on cpu, {sizes})"


def test_weights_replace_those_of_clip(config, predictor, image_paths, tmp_path, caplog):
    weights = tmp_path / "weights.pth"
    torch.save({"model": predictor.model.state_dict()}, weights)
    config.MODEL.CLIP.PRETRAINED = "openai"  # would have to be downloaded, or refused
    caplog.clear()
    loaded = Predictor.from_config(config, weights)
    assert "random weights" not in caplog.text
    expected = predictor(image_paths[0], NAMES).similarity
    assert torch.equal(loaded(image_paths[0], NAMES).similarity, expected)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        Predictor.from_config(config, "nowhere.pth")
    assert config.MODEL.WEIGHTS == ""


@pytest.mark.parametrize(
    ("vocabulary", "problem"),
    [
        ("cat", r"neither a file of names.*\[\"cat\", \"sofa\"\]"),
        ("ade20k_150_synonym", "nor one of ours"),
        ([], "empty"),
        (["cat", ""], "Class name 1 is empty"),
        ({"cat"}, "list or tuple"),
        (["word " * 90], "does not fit into CLIP's context"),
    ],
)
def test_bad_vocabularies_are_refused(predictor, image_paths, vocabulary, problem):
    with pytest.raises(ValueError, match=problem):
        predictor(image_paths[0], vocabulary)
    assert predictor(image_paths[0], NAMES).names == tuple(NAMES)


def test_bad_names_files_are_refused(predictor, image_paths, tmp_path):
    path = tmp_path / "names.txt"
    for content in (b"", b"\n \n", "schön".encode("latin-1")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"names\.txt"):
            predictor(image_paths[0], path)
    path.write_bytes("sky, grass".encode("utf-16"))
    with pytest.raises(ValueError, match="not text in UTF-8: save it so"):
        predictor(image_paths[0], path)


def test_bad_options_are_refused(predictor, image_paths, config):
    with pytest.raises(ValueError, match="background_threshold is 20"):
        predictor(image_paths[0], NAMES, background_threshold=20)
    with pytest.raises(ValueError, match="background_threshold is 'high'"):
        predictor(image_paths[0], NAMES, background_threshold="high")
    with pytest.raises(ValueError, match="nothing but the background"):
        predictor(image_paths[0], ["background"], background_threshold=0.5)
    with pytest.raises(ValueError, match="list or tuple"):
        predictor(image_paths[0], NAMES, background_words="sky")
    with pytest.raises(ValueError, match="channel_order is 'rgb'"):
        predictor(image_paths[0], NAMES, channel_order="rgb")
    with pytest.raises(ValueError, match="too narrow"):
        predictor(np.zeros((1, 1000, 3), np.uint8), NAMES)
    with pytest.raises(ValueError, match="batch_size 0"):
        Predictor(predictor.model, batch_size=0)
    with pytest.raises(ValueError, match="Merge the overrides"):
        Predictor.from_config(config, overrides=["SEED", "1"])
    config.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    with pytest.raises(ValueError, match="expected 'PixelCLIP'"):
        Predictor.from_config(config)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_what_the_cpu_gives(predictor, image_paths):
    on_gpu = Predictor(copy.deepcopy(predictor.model).cuda(), 50, 60)
    expected, actual = predictor(image_paths[0], NAMES), on_gpu(image_paths[0], NAMES)
    assert not actual.labels.is_cuda
    assert not actual.similarity.is_cuda
    torch.testing.assert_close(actual.similarity, expected.similarity, atol=1e-3, rtol=1e-3)
    assert (actual.labels == expected.labels).float().mean() > 0.99
