"""The pages show files as they are, and lead where they say."""

from __future__ import annotations

import re
from typing import Iterable, Sequence

import pytest
from pages import FOLLOWED, MAKE_FILES, NOT_RUN, PAGES, ROOT, Block, blocks, blocks_of, name

#: A link that stands alone on its line and is called like a file, and the block below it.
SHOWN = re.compile(r"^\[`[^`\n]+`\]\((\S+)\)\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
#: What has somebody install a package by ginit's name; to the end of the command, or of the line.
INSTALL = re.compile(
    r"\b(?:install|uvx|(?:pip[\d.]*|pipx|uv|poetry|pdm)\s+(?:add|download|wheel|run|inject))\b"
    r"(?P<options>(?:[^\n;&|\\]|\\\n)*?)"
    r"(?<![\w./:-])ginit(?P<ours>[-_.]container)?(?![\w/-]|\.\w)",
    re.IGNORECASE,
)
SHOWING = [page for page in PAGES if SHOWN.search(page.read_text())]


def tells_to_install(text: str) -> bool:
    """Whether somebody is told to install ginit from an index.

    `ginit` there is somebody else's, and `ginit-container` isn't there; it comes from a directory, with `--no-index`.
    """
    return any(not (found["ours"] and "--no-index" in found["options"]) for found in INSTALL.finditer(text))


def anchor(heading: str) -> str:
    """What a heading is linked by, as GitHub has it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", SHOWING, ids=name)
def test_a_block_below_a_file_s_name_is_that_file_or_some_of_its_lines(page):
    for path, text in SHOWN.findall(page.read_text()):
        assert f"\n{text}" in "\n" + (page.parent / path).read_text(), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_link_to_a_file_or_to_a_heading_leads_there(page):
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if fragment:
            assert fragment in map(anchor, HEADING.findall(target.read_text())), link


@pytest.mark.parametrize("source", ["cmd", "dinit", "runit", "supervisord"])
def test_every_page_on_where_people_come_from_shows_files(source):
    assert ROOT / f"docs/how-to/from-{source}.md" in SHOWING


def unaccounted(page: str, found: Iterable[Block], shown: Sequence[str]) -> list[str]:
    """The blocks that no test runs or compares with a file, and of which nothing is said."""
    return [
        block.opening
        for block in found
        if block.language != "text"  # what is printed, or drawn
        and block.text not in shown
        and (page, block.opening) not in NOT_RUN
        and not (page in FOLLOWED and block.language == "console")
        and not (page in MAKE_FILES and block.file)
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_run_or_shown_by_a_test_or_it_is_said_why_not(page):
    shown = [text for _, text in SHOWN.findall(page.read_text())]
    assert unaccounted(name(page), blocks(page), shown) == []


@pytest.mark.parametrize("fence", ["bash", "sh", "", "python", "dockerfile", "console", "console title=x"])
@pytest.mark.parametrize("indent", ["", "  "])
def test_a_new_block_would_be_found(fence, indent):
    text = f"{indent}```{fence}\n{indent}$ false\n{indent}```\n"
    assert unaccounted("docs/new.md", blocks_of(text), []) == ["$ false"]


def test_each_block_that_is_said_not_to_be_run_is_there():
    there = {(name(page), block.opening) for page in PAGES for block in blocks(page)}
    assert NOT_RUN.keys() - there == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_said_of_a_block_is_said_of_one(page):
    openings = [block.opening for block in blocks(page) if (name(page), block.opening) in NOT_RUN]
    assert len(openings) == len(set(openings))


def test_nobody_is_told_to_install_ginit_from_an_index():
    places = [ROOT / place for place in ("ginit", "bin", "docker", "docs", "examples", "benchmarks", "tests", ".ci")]
    files = [*ROOT.glob("*"), *(file for place in places for file in place.rglob("*"))]
    texts = [file for file in files if file.is_file() and file.suffix != ".pyc" and "data" not in file.parts]
    told = [str(file) for file in texts if tells_to_install(file.read_text(errors="replace"))]
    assert told == [__file__]  # the examples below


@pytest.mark.parametrize(
    "text",
    [
        "pip install ginit",
        "Run `pip install ginit` first.",
        "pip install ginit, then",
        "RUN pip install --no-cache-dir ginit gunicorn",
        'RUN ["pip", "install", "ginit"]',
        "pip3 install -U 'ginit[test]'",
        "pip install --upgrade ginit[x]",
        "pip install ginit==1",
        "pip install GInit",
        "pip install \\\n    flask \\\n    ginit",
        "pipx install ginit",
        "uv add ginit",
        "pip download ginit",
        "install ginit with its dependencies",
        "pip install ginit-container",
        "pip install --find-links /wheels ginit_container",
    ],
)
def test_that_would_be_found(text):
    assert tells_to_install(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install .",
        "pip install . && ginit check",
        "pip install dist/ginit_container-0.1.0-py3-none-any.whl",
        "pip install --no-index --find-links /wheels ginit-container",
        "ln -s /opt/ginit/bin/ginit /usr/local/bin/ginit",
    ],
)
def test_that_is_nothing_of_the_kind(text):
    assert not tells_to_install(text)
