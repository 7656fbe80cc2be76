"""The page in a real browser, as a person uses it."""

import json
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pixelclip.toy.scenes import CLASS_NAMES, make_scene
from pixelclip.web.models import OURS, PageModels
from pixelclip.web.page import serve
from pixelclip.web.request import Limits, read_image
from pixelclip.web.viewer import VOID_LABEL

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.slow

LIMITS = Limits(upload_megabytes=0.5, megapixels=1.0, words=20)
PATIENCE_SECONDS = 600  # only ends what hangs
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1360,1000",
)


@pytest.fixture(scope="module")
def address(toy_models: PageModels, asked_for: list[str]) -> Iterator[str]:
    pytest.importorskip("gradio")
    with serve(toy_models, LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if not all(programs.values()):
        pytest.skip(
            f"needs Chromium and its driver (Debian: chromium, chromium-driver): {programs}"
        )
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs["chromedriver"]))
    yield SimpleNamespace(driver=driver, downloads=downloads)
    driver.quit()


class Visit:
    """A visit to the page."""

    def __init__(self, browser: SimpleNamespace, address: str) -> None:
        self.driver, self.downloads = browser.driver, browser.downloads
        self.driver.get(address)
        self.find("#words textarea")

    def wait(self, condition):
        return WebDriverWait(self.driver, PATIENCE_SECONDS).until(lambda _: condition())

    def find(self, selector):
        return self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector))[0]

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def upload(self, path):
        self.find("#image input[type=file]").send_keys(str(path))

    def upload_and_see(self, path):
        self.upload(path)
        self.find("#image .image-frame img, #image img")

    def segment(self, words):
        field = self.find("#words textarea")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(words)
        self.find("#segment").click()

    def problem(self):
        return self.find("#message .problem").text

    def overlay(self):
        return self.find("#viewer img.shown").get_attribute("src")

    def changed_overlay(self, before):
        return self.wait(lambda: self.overlay() if self.overlay() != before else None)

    def hover(self, x, y):
        """What is said of a place of the first image, in shares of its sides."""
        image = self.find("#viewer img.shown")
        size = image.size
        offset = (round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"]))
        ActionChains(self.driver).move_to_element_with_offset(image, *offset).perform()
        return self.wait(lambda: self.find("#viewer .tip").text)

    def set_threshold(self, value):
        field = self.find("#threshold input[type=number]")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value), Keys.TAB)

    def download(self, button):
        for old in self.downloads.iterdir():
            old.unlink()
        self.find(button).click()
        return self.wait(lambda: next(self.downloads.glob("*.png"), None))


@pytest.fixture
def visit(browser, address) -> Visit:
    return Visit(browser, address)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray(make_scene(13, 47).pixels).resize((192, 192)).save(path)
    return path


WORDS = ("water", "brick", "stone", "car", "mushroom")


@pytest.fixture(scope="module")
def expected(toy_models, scene):
    return toy_models.label(OURS, read_image(str(scene), LIMITS), WORDS)


def test_upload_type_see_toggle_threshold_download(visit, scene, expected):
    visit.upload_and_see(scene)
    visit.segment(", ".join(WORDS))
    shown = visit.overlay()
    legend = [label.text for label in visit.all("#viewer .legend label")]
    assert sorted(line.split()[0] for line in legend) == sorted(WORDS)
    for x, y in ((0.1, 0.1), (0.5, 0.5), (0.9, 0.9)):
        name, cosine = visit.hover(x, y).split()
        at = (int(y * 192), int(x * 192))
        near = expected.similarity[at[0] - 2 : at[0] + 3, at[1] - 2 : at[1] + 3]
        assert name == WORDS[expected.labels[at]]
        assert near.min() - 0.001 <= float(cosine) <= near.max() + 0.001

    top = legend[0].split()[0]
    visit.find("#viewer .legend input").click()
    toggled = visit.changed_overlay(shown)
    assert not visit.find("#viewer .legend input").is_selected()

    visit.set_threshold(0.35)
    visit.changed_overlay(toggled)
    labels = np.asarray(Image.open(visit.download("#download-labels")))
    is_void = (expected.similarity < 0.35) | (expected.labels == WORDS.index(top))
    np.testing.assert_array_equal(labels, np.where(is_void, VOID_LABEL, expected.labels))
    overlay = Image.open(visit.download("#download-overlay"))
    assert overlay.width == 192 and overlay.height > 192


def test_a_baseline_is_next_to_it_and_goes_again(visit, scene):
    visit.upload_and_see(scene)
    visit.segment(", ".join(WORDS))
    visit.overlay()
    box = visit.find("#compare input[name=NACLIP]")
    box.click()
    visit.wait(lambda: len(visit.all("#viewer img.shown")) == 2)
    captions = [caption.text for caption in visit.all("#viewer figcaption")]
    assert captions == ["PixelCLIP", "NACLIP"]
    box.click()
    visit.wait(lambda: len(visit.all("#viewer img.shown")) == 1)


def test_an_example_is_segmented_by_a_click(visit):
    visit.find("#examples tbody tr").click()
    visit.overlay()
    typed = visit.find("#words textarea").get_property("value").split(", ")
    assert set(typed) <= set(CLASS_NAMES)
    assert len(visit.all("#viewer .legend label")) == len(typed)


def test_problems_are_sentences_and_pass(visit, scene, tmp_path):
    visit.segment("sky")
    assert visit.problem() == (
        "Choose an image first: drop it into the field, or click the field."
    )
    visit.upload_and_see(scene)
    visit.segment(", ".join(f"class {index}" for index in range(21)))
    visit.wait(lambda: visit.problem() == "These are 21 classes; at most 20 are possible.")
    visit.segment("<b>${x}{{y}}, sky")
    visit.overlay()
    assert not visit.all("#message .problem")
    assert {"<b>${x}{{y}}", "sky"} == {
        label.text.rsplit(maxsplit=1)[0] for label in visit.all("#viewer .legend label")
    }


def test_a_wrong_file_under_the_name_of_an_image_is_a_sentence(visit, tmp_path):
    (tmp_path / "wrong.png").write_text("not an image")
    visit.upload_and_see(tmp_path / "wrong.png")
    visit.segment("sky")
    assert visit.problem().startswith("This file is not an image; expected a JPEG, PNG")


def test_too_many_pixels_are_a_sentence(visit, tmp_path):
    Image.new("1", (2000, 1000)).save(tmp_path / "large.png")
    visit.upload_and_see(tmp_path / "large.png")
    visit.segment("sky")
    assert visit.problem() == (
        "The image has 2000 x 1000 pixels; at most 1 megapixels are possible."
    )


@pytest.mark.parametrize("name", ["notes.txt", "heavy.png"])
def test_what_is_refused_at_once_is_said_in_a_sentence(visit, tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * 600_000)
    visit.upload(tmp_path / name)
    said = visit.wait(lambda: [toast.text for toast in visit.all(".toast-body") if toast.text])
    expected = {"notes.txt": "file type", "heavy.png": "maximum allowed size"}[name]
    assert expected in said[0]
    visit.segment("sky")
    assert visit.problem().startswith("Choose an image first")


def test_nothing_beyond_this_machine_was_asked_for(visit, address, asked_for):
    """The last test: the log holds what all of them did."""
    time.sleep(1)
    messages = [
        json.loads(entry["message"])["message"] for entry in visit.driver.get_log("performance")
    ]
    urls = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    hosts = {urllib.parse.urlsplit(url).hostname for url in urls if url.startswith(("http", "ws"))}
    assert hosts == {urllib.parse.urlsplit(address).hostname} == {"127.0.0.1"}
    assert asked_for == []
    complaints = [entry for entry in visit.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert [entry["message"] for entry in complaints if "javascript" in entry["source"]] == []
