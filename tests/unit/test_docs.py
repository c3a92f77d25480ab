"""The pages show files as they are, and lead where they say."""

from __future__ import annotations

import re

import pytest
from pages import FOLLOWED, NOT_RUN, PAGES, ROOT, blocks, name

#: A link that stands alone on its line and is called like a file, and the block below it.
SHOWN = re.compile(r"^\[`[^`\n]+`\]\((\S+)\)\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
#: What has somebody install a package of that name: the index's, which is somebody else's.
INSTALL = re.compile(r"\bpip3?\b[^\n]*\binstall\b(?:[^\n]|\\\n)*?[\s'\"]ginit(?:\[[^]\n]*\])?(?:[\s'\";=<>~!]|$)", re.MULTILINE)
SHOWING = [page for page in PAGES if SHOWN.search(page.read_text())]


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


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_of_commands_is_run_by_a_test_or_it_is_said_why_not(page):
    shown = [text for _, text in SHOWN.findall(page.read_text())]
    for block in blocks(page):
        if block.language not in ("console", "sh") or (name(page), block.opening) in NOT_RUN:
            continue
        assert (name(page) in FOLLOWED and (block.language == "console" or block.file)) or block.text in shown, block.opening


def test_each_block_that_is_said_not_to_be_run_is_there():
    there = {(name(page), block.opening) for page in PAGES for block in blocks(page)}
    assert NOT_RUN.keys() - there == set()


def test_nobody_is_told_to_install_ginit_from_an_index():
    places = [ROOT / place for place in ("ginit", "bin", "docker", "examples", "benchmarks", "tests", ".ci")]
    files = [*PAGES, ROOT / "Makefile", *(file for place in places for file in place.rglob("*"))]
    texts = [file for file in files if file.is_file() and file.suffix != ".pyc"]
    told = [str(file) for file in texts if INSTALL.search(file.read_text(errors="replace"))]
    assert told == [__file__]  # the examples below


@pytest.mark.parametrize(
    "text",
    [
        "pip install ginit",
        "RUN pip install --no-cache-dir ginit gunicorn",
        "pip3 install -U 'ginit[test]'",
        "pip install ginit==1",
    ],
)
def test_that_would_be_found(text):
    assert INSTALL.search(text)
