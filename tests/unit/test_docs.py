"""The pages show files as they are, and lead where they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: A link that stands alone on its line and is called like a file, and the block below it.
SHOWN = re.compile(r"^\[`[^`\n]+`\]\((\S+)\)\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
PAGES = [
    page
    for directory in (".", "docs", "examples", "benchmarks")
    for page in sorted((ROOT / directory).glob("*.md" if directory == "." else "**/*.md"))
]
SHOWING = [page for page in PAGES if SHOWN.search(page.read_text())]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


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
