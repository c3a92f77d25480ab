"""The pages of the documentation, as a reader takes them: files to write, and commands to paste, with what they print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for directory in (".", "docs", "examples", "benchmarks")
    for page in sorted((ROOT / directory).glob("*.md" if directory == "." else "**/*.md"))
]
#: A block of any language or none, also in a list, and the file's name above it.
_BLOCK = re.compile(
    r"^(?:\[?`([^`\n]+)`(?:\]\([^)\n]*\))?\n\n)?( *)(?:```|~~~)([^\n`]*)\n(.*?)^\2(?:```|~~~)$", re.MULTILINE | re.DOTALL
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Command(NamedTuple):
    """What a reader types, and what is shown below it."""

    text: str
    output: list[str]


class Block(NamedTuple):
    """A block of code."""

    #: The name of the file that it is, which stands alone on the line above it, if it is one.
    file: str | None
    language: str
    text: str

    @property
    def opening(self) -> str:
        """Its first line, without a comment."""
        return re.split(r"\s+#", self.text.partition("\n")[0])[0]

    @property
    def commands(self) -> list[Command]:
        """Those of a `console` block: a line that begins with a dollar sign, and those that it goes on in."""
        commands: list[Command] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append(Command(line[2:], []))
            elif commands[-1].text.endswith("\\") and not commands[-1].output:
                commands[-1] = Command(f"{commands[-1].text}\n{line}", [])
            else:
                commands[-1].output.append(line)
        return commands


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    yield from blocks_of(page.read_text())


def blocks_of(text: str) -> Iterator[Block]:
    """The blocks of a page's text, in order."""
    for file, indent, info, block in _BLOCK.findall(text):
        yield Block(file or None, info.strip(), re.sub(f"^{indent}", "", block, flags=re.MULTILINE))


#: The pages that a test follows from beginning to end, in a shell and an engine of its own.
FOLLOWED = (
    "README.md",
    "docs/tutorial/first-container.md",
    "docs/how-to/from-cmd.md",
    "docs/how-to/from-runit.md",
    "docs/how-to/docker-swarm.md",
    "docs/how-to/kubernetes.md",
    "examples/nginx/README.md",
    "examples/postgresql/README.md",
    "examples/redis/README.md",
    "examples/guestbook/README.md",
)

#: Those of them whose files the reader makes, in a directory of his own; the others show what is in the checkout.
MAKE_FILES = ("README.md", "docs/tutorial/first-container.md")

#: A command that comes several times.
DEPLOY = "docker stack deploy --resolve-image never --compose-file docker/swarm.yaml guestbook"
_HERE = "it is how these tests are run"
_CHECKOUT = "root, who runs this, is refused by PostgreSQL; tests/integration/test_examples.py runs what it runs"
_SOCKET = '--host "$PWD/examples/postgresql/data" --command "SELECT version()" postgres'
_CLUSTER = "it takes a cluster; `make lint` checks the manifest"
#: Blocks that nobody runs as they stand, by their page and opening, and why.
NOT_RUN = {
    ("README.md", "$ make run"): _HERE,
    ("CONTRIBUTING.md", "$ make test"): _HERE,
    ("benchmarks/README.md", "$ make bench"): "it takes hours",
    ("docs/how-to/docker-swarm.md", 'sleep "${DRAIN_SECONDS:-0}"'): "two lines of the guestbook's nginx/terminate",
    ("docs/how-to/kubernetes.md", "$ kubectl apply -f docker/kubernetes.yaml"): _CLUSTER,
    ("docs/how-to/kubernetes.md", "lifecycle:"): "some lines of a manifest, to show how it is written",
    ("examples/postgresql/README.md", "$ make .venv/ready"): _CHECKOUT,
    ("examples/postgresql/README.md", f"$ psql {_SOCKET}"): _CHECKOUT,
}
