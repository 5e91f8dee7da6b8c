"""The texts that people read, and what stands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md"))
)
PROGRAMS = ("dreambooth3d", "zenml", "make", "python")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_PROSE = re.compile(r"^( *)```.*?^\1```|`[^`\n]*`|``.*?``", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(\s*([^)\s]+)[^)]*\)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
_INDENTED = re.compile(rf"^ {{4,}}(?:\$ )?(?:{'|'.join(PROGRAMS)}) .*$", re.MULTILINE)
_ENDS = {"&&", "||", "|", ";", "&", ">", ">>", "2>", "<"}


@dataclass(frozen=True)
class Command:
    """A command of a text: where it stands, and its words."""

    text: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        """As a test's name."""
        return f"{self.text}: {shlex.join(self.words)}"


def read(name: str) -> str:
    """A text."""
    return (ROOT / name).read_text()


def commands_in(markdown: str) -> Iterator[tuple[str, ...]]:
    """The words of each command in the fenced blocks of a shell's language, without prompts, comments and outputs."""
    for _, language, block in _FENCE.findall(markdown):
        if language not in ("bash", "sh", "console"):
            continue
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if language == "console" and not line.lstrip().startswith("$ "):
                continue
            yield from _parts(line.strip().removeprefix("$ "))


def _parts(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    part: list[str] = []
    for word in [*lexer, ";"]:
        if word not in _ENDS:
            part.append(word)
            continue
        while part and re.fullmatch(r"[A-Z_]+=.*", part[0]):
            part = part[1:]
        if part and part[0] in PROGRAMS and (part[0] != "python" or part[1:2] == ["-m"]):
            yield tuple(part)
        part = []


def inline_commands(markdown: str) -> Iterator[tuple[str, ...]]:
    """The words of commands in sentences, up to what stands for something else."""
    prose = _FENCE.sub("", markdown)
    for code in re.findall(r"`([^`\n]+)`", prose):
        if re.match(rf"(?:{'|'.join(PROGRAMS)}) ", code) and (code[:7] != "python " or code[7:10] == "-m "):
            yield from _parts(re.split(r"\.\.\.|…", code)[0])


def all_commands() -> list[Command]:
    """The commands of all texts, each once per text."""
    return [Command(name, words) for name in TEXTS for words in dict.fromkeys(commands_in(read(name)))]


def indented_commands(markdown: str) -> list[str]:
    """Lines with commands that stand in no fenced block, and that nothing checks therefore."""
    return _INDENTED.findall(_FENCE.sub("", markdown))


def links_in(markdown: str) -> list[str]:
    """Targets of links and pictures, but those in code."""
    return _LINK.findall(_PROSE.sub("``", markdown))


def anchors_in(markdown: str) -> set[str]:
    """Anchors of headings as code hosts make them."""
    found: dict[str, int] = {}
    anchors = set()
    for heading in _HEADING.findall(_FENCE.sub("", markdown)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        count = found.get(anchor, 0)
        found[anchor] = count + 1
        anchors.add(f"{anchor}-{count}" if count else anchor)
    return anchors
