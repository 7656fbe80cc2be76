"""The code blocks of a Markdown document, each with what a comment before it says about its run.

Such a comment stands directly before its block, and its parts are separated by semicolons:

    <!-- docs-check: replace `--num-gpus 8` by `--num-gpus 1`; at the same time -->

- replace `A` by `B`: in the code, everywhere; A must be there.
- given NAMES: what a Python block begins with; see ``session.GIVEN``.
- at the same time: the lines of a shell block start together.
- until `TEXT`: the last command never ends on its own; it is stopped once it has printed TEXT.
- written to `FILE`: what a block of data is for; later blocks read the file.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

SHELL, PYTHON, DATA, TEXT = "shell", "python", "data", "text"
# The name after ``` of a fenced block; an indented block is shell.
_LANGUAGES = {"": SHELL, "sh": SHELL, "bash": SHELL, "console": SHELL, "python": PYTHON}
_LANGUAGES |= {"yaml": DATA, "json": DATA, "text": TEXT}

_MARK = "docs-check:"
_PARTS = {
    "replace": re.compile(r"replace `([^`]+)` by `([^`]*)`"),
    "given": re.compile(r"given ([\w, ]+)"),
    "together": re.compile(r"(at the same time)"),
    "until": re.compile(r"until `([^`]+)`"),
    "written_to": re.compile(r"written to `([^`]+)`"),
}
_SEPARATOR = re.compile(r";(?=(?:[^`]*`[^`]*`)*[^`]*$)")  # not between backquotes


@dataclass(frozen=True)
class CodeBlock:
    """A code block of a document.

    Attributes:
        document: the name of the page.
        line: where the block begins, from 1.
        language: one of SHELL, PYTHON, DATA and TEXT.
        code: what is run: the text of the block after its replacements.
        is_reduced: whether the comment changes what is run.
        given: names that a Python block finds defined.
        together: whether the lines start at the same time.
        until: what the last command prints when it may be stopped; "" if it ends on its own.
        written_to: the file that the text of a block of data belongs in; "" for none.
    """

    document: str
    line: int
    language: str
    code: str
    is_reduced: bool = False
    given: tuple[str, ...] = ()
    together: bool = False
    until: str = ""
    written_to: str = ""

    @property
    def place(self) -> str:
        """Where the block is, as docs/train.md:12."""
        return f"{self.document}:{self.line}"


@dataclass
class _Comment:
    """What a comment says: (before, after) pairs, and attributes of :class:`CodeBlock`."""

    line: int
    replacements: list[tuple[str, str]] = field(default_factory=list)
    attributes: dict[str, object] = field(default_factory=dict)


def read_code_blocks(path: Path, document: str = "") -> list[CodeBlock]:
    """Read the code blocks of a document, in their order.

    Args:
        path: of the Markdown file.
        document: what the blocks and errors call it; default: the name of the file.

    Raises:
        ValueError: a comment stands before no block, says something unknown or does not fit its
            block; or a block has an unknown language, or is data without a comment.
    """
    document = document or path.name
    tokens = MarkdownIt().parse(path.read_text())
    blocks: list[CodeBlock] = []
    comment: _Comment | None = None
    for token in tokens:
        if token.type in ("fence", "code_block"):
            blocks.append(_make_block(document, token, comment))
            comment = None
        elif comment is not None:
            raise ValueError(f"{document}:{comment.line}: the comment stands before no code block")
        elif token.type == "html_block" and _MARK in token.content:
            comment = _read_comment(document, token)
    if comment is not None:
        raise ValueError(f"{document}:{comment.line}: the comment stands before no code block")
    return blocks


def _read_comment(document: str, token: Token) -> _Comment:
    comment = _Comment(_line(token))
    text = " ".join(token.content.split())
    match = re.fullmatch(rf"<!-- {_MARK} (.*) -->", text)
    for part in _SEPARATOR.split(match[1]) if match else [text]:
        _read_part(comment, part.strip(), f"{document}:{comment.line}")
    return comment


def _read_part(comment: _Comment, part: str, place: str) -> None:
    for name, pattern in _PARTS.items():
        match = pattern.fullmatch(part)
        if match and name == "replace":
            comment.replacements.append((match[1], match[2]))
            return
        if match:
            words = tuple(word.strip() for word in match[1].split(","))
            values = {"given": words, "together": True}
            comment.attributes[name] = values.get(name, match[1])
            return
    raise ValueError(f"{place}: {part!r} is none of what such a comment may say: {list(_PARTS)}")


def _make_block(document: str, token: Token, comment: _Comment | None) -> CodeBlock:
    language_name = token.info.strip() if token.type == "fence" else ""
    place = f"{document}:{_line(token)}"
    if language_name not in _LANGUAGES:
        raise ValueError(f"{place}: {language_name!r} is none of {sorted(_LANGUAGES)}")
    comment = comment or _Comment(0)
    code = token.content
    for before, after in comment.replacements:
        if before not in code:
            raise ValueError(f"{place}: the comment replaces {before!r}, which is not there")
        code = code.replace(before, after)
    is_reduced = code != token.content
    block = CodeBlock(document, _line(token), _LANGUAGES[language_name], code, is_reduced)
    return _with_attributes(block, comment)


def _with_attributes(block: CodeBlock, comment: _Comment) -> CodeBlock:
    fitting = {SHELL: {"together", "until"}, PYTHON: {"given"}, DATA: {"written_to"}, TEXT: set()}
    unfit = set(comment.attributes) - fitting[block.language]
    if unfit or (block.language == TEXT and block.is_reduced):
        raise ValueError(f"{block.place}: the comment does not fit a block of {block.language}")
    if block.language == DATA and not comment.attributes:
        raise ValueError(f"{block.place}: say by a comment to which file this is written")
    return CodeBlock(**{**vars(block), **comment.attributes})


def _line(token: Token) -> int:
    assert token.map is not None
    return token.map[0] + 1
