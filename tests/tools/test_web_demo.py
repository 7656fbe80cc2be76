import numpy as np
import pytest
import web_demo
from cli import run

from pixelclip.web import models, page
from pixelclip.web.models import OURS
from pixelclip.web.request import Limits, RequestError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "none.yaml"], "none.yaml"),
        (["--weights", "none.pth"], "none.pth"),
        (["--weights", "toy", "--opts", "MODEL.NONE", "1"], "MODEL.NONE"),
        (["--max-words", "300"], "The limit words is 300; expected 1 to 255"),
        (["--max-seconds", "0"], "The limit seconds is 0.0; expected a positive"),
    ],
)
def test_mistakes_are_said(arguments, message, capsys):
    assert run(web_demo.main, arguments) == 1
    assert message in capsys.readouterr().err


def test_weights_that_cannot_be_downloaded_are_said(monkeypatch, capsys):
    def refuse(*_, **__):
        raise RuntimeError("The weights 'openai' could not be downloaded.")

    monkeypatch.setattr(models, "PageModels", refuse)
    assert run(web_demo.main, []) == 1
    assert capsys.readouterr().err == "error: The weights 'openai' could not be downloaded.\n"


def test_limits_and_address_are_passed_on(monkeypatch, capsys):
    served, closed = [], []

    def serve(page_models, limits, host, port, note):
        closed.append(page_models)
        served.append((page_models.seconds, limits, host, port, "tiny CLIP" in note))
        raise OSError("the port is taken")

    monkeypatch.setattr(page, "serve", serve)
    arguments = ["--weights", "toy", "--max-words", "3", "--max-seconds", "1.5", "--port", "8000"]
    assert run(web_demo.main, arguments) == 1
    assert served == [(1.5, Limits(words=3, seconds=1.5), "127.0.0.1", 8000, True)]
    assert capsys.readouterr().err == "error: the port is taken\n"
    with pytest.raises(RequestError, match="The page is closing"):
        closed[0].label(OURS, np.zeros((32, 32, 3), np.uint8), ["sky"])


def test_the_default_limits_are_the_pages():
    assert Limits(**web_demo.LIMITS) == Limits()
