"""Every document of the repository: its links, file names, config keys, flags and targets exist."""

import contextlib
import importlib
import re
import runpy
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pixelclip import add_pixelclip_config
from tests.documents.check import REPOSITORY, list_documents, select_blocks
from tests.documents.code_blocks import TEXT, CodeBlock, read_code_blocks
from tests.documents.session import GIVEN

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
PAGES.append(REPOSITORY / "datasets" / "README.md")
ALL_PAGES = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY))
)

FILE = re.compile(r"(?<![\w/.$=-])(?:configs|tools|datasets|docs|pixelclip|tests)/[\w./-]*\w")
CONFIG_KEY = re.compile(r"\b(?:MODEL|SOLVER|INPUT|DATASETS|DATALOADER|TEST)(?:\.[A-Z0-9_]+)+\b")
MODULE = re.compile(r"(?<![\w/.])pixelclip(?:\.\w+)+")
TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
# A subcommand or a script with options, and what follows it.
COMMAND = re.compile(
    r"(?:^|(?<=[ /]))(?<!from )"
    r"(pixelclip (?:datasets )?[a-z][\w-]*|(?:tools|datasets)/\w+\.py(?= --))(?= |$)([^\n#|]*)",
    re.MULTILINE,
)


def walk(page: Path) -> Iterator[Token]:
    """All tokens of a page, those inside of paragraphs and tables included."""
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        yield token
        yield from token.children or ()


def code_of(page: Path) -> str:
    """All code of a page, inline or in blocks, with joined continuation lines."""
    kinds = ("code_inline", "code_block", "fence")
    return "\n".join(t.content for t in walk(page) if t.type in kinds).replace("\\\n", " ")


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    tokens = MarkdownIt().parse(page.read_text())
    pairs = zip(tokens, tokens[1:], strict=False)
    return {slug(inside.content) for token, inside in pairs if token.type == "heading_open"}


def slug(heading: str) -> str:
    text = unicodedata.normalize("NFC", heading).lower().replace("`", "")
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@ALL_PAGES
def test_links_lead_somewhere(page):
    for token in walk(page):
        target = str(token.attrs.get("href", token.attrs.get("src", "")))
        if not target or re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors_of(path), target
        if token.type == "image":
            assert path.stat().st_size < 300_000, f"{target} is too large for a repository"


@ALL_PAGES
def test_files_that_are_named_exist(page):
    for name in FILE.findall(code_of(page)):
        assert (REPOSITORY / name).exists() or is_made(name), name


def is_made(name: str) -> bool:
    """Whether a command writes the file: data below ``datasets`` is not in the repository."""
    return name.startswith("datasets/") and not name.endswith((".py", ".md"))


@ALL_PAGES
def test_config_keys_exist(page):
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    for key in CONFIG_KEY.findall(code_of(page)):
        node = cfg
        for part in key.split("."):
            assert isinstance(node, CfgNode) and part in node, key
            node = node[part]


@ALL_PAGES
def test_modules_and_their_names_exist(page):
    for name in MODULE.findall(code_of(page)):
        if not name.endswith((".yaml", ".json", ".org")):
            assert is_importable(name), name


def is_importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return hasattr(importlib.import_module(module), attribute)
    return True


@ALL_PAGES
def test_make_targets_exist(page):
    makefile = (REPOSITORY / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    for target in TARGET.findall(code_of(page)):
        assert target in phony[1].split(), target


def commands() -> dict[str, set[str]]:
    """The flags that all pages together give to each command."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for name, rest in COMMAND.findall(code_of(page)):
            flags = re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", re.sub(r'"[^"]*"', "", rest))
            found.setdefault(name, set()).update(flags)
    return found


@pytest.mark.parametrize(("name", "flags"), sorted(commands().items()))
def test_flags_exist(name, flags, capsys, monkeypatch):
    script, *subcommand = ["tools/cli.py", *name.split()[1:]] if " " in name else [name]
    monkeypatch.setattr(sys, "argv", [script, *subcommand, "--help"])
    with contextlib.suppress(SystemExit):
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "usage" in printed.lower(), f"{name} has no help"
    unknown = flags - set(re.findall(r"--[a-z][a-z0-9-]*", printed))
    assert not unknown, f"{name} has no {unknown}"


def test_every_page_with_code_is_checked():
    pages = {str(page.relative_to(REPOSITORY)) for page in PAGES}
    unchecked = {"CHANGELOG.md", "CONTRIBUTING.md", "datasets/README.md"}
    with_code = {page for page in pages - unchecked if read_code_blocks(REPOSITORY / page)}
    assert with_code == set(list_documents())


def test_every_block_can_be_run():
    blocks = [block for found in select_blocks().values() for block in found]
    for block in blocks:
        assert set(block.given) <= set(GIVEN), block.place
        if block.language == TEXT:
            assert not re.search(r"^\s*(\$|>>>|python|pixelclip|make|pip)\b", block.code, re.M)


def test_every_command_among_words_is_in_a_block_too():
    """Only blocks are run: a command that no block runs would be checked by nobody."""
    run = {command for blocks in select_blocks().values() for command in commands_of(blocks)}
    for document in list_documents():
        for token in walk(REPOSITORY / document):
            if token.type == "code_inline":
                for name, _ in COMMAND.findall(token.content):
                    assert name in run, f"{document}: no block runs {token.content}"


def commands_of(blocks: list[CodeBlock]) -> set[str]:
    return {name for block in blocks for name, _ in COMMAND.findall(block.code)}
