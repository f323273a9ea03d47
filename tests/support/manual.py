"""What the pages of this repository show: code, commands of any program, and what is wrong with them."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskvec.cli.commands import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
# The changelog also names what is gone.
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "RELEASE", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benches" / "RESULTS.md",
    ROOT / "benches" / "real" / "README.md",
]
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
# What belongs to other programs: hf, pip.
_OTHERS_OPTIONS = {"--local-dir", "--group"}
# Programs of which nothing here can be looked up.
_KNOWN = {".", "eval", "git", "gh", "hf", "export", "rustup"}


@dataclass(frozen=True)
class Block:
    """Code between fences."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """The code between fences, in order, without the indentation that it has as part of a list."""
    return [
        Block(language, re.sub(rf"^{indent}", "", code, flags=re.MULTILINE))
        for indent, language, code in _FENCE.findall(text)
    ]


def spans(text: str) -> list[str]:
    """What is between backticks in running text and in tables, each on one line."""
    prose = _FENCE.sub("", text)
    return [" ".join(span.replace(r"\|", "|").split()) for _, span in _SPAN.findall(prose)]


def lines(text: str) -> list[list[str]]:
    """The commands in blocks, word by word, without comments; several on a line are several commands."""
    found = list[list[str]]()
    for block in blocks(text):
        # Blocks without a language also hold what is no command; the first word tells.
        if block.language == "" and _is_program(block.text.split(maxsplit=1)[0]):
            for line in block.text.replace("\\\n", " ").splitlines():
                found += _commands(line)
    return found


def _commands(line: str) -> Iterator[list[str]]:
    words = list[str]()
    for word in (*shlex.split(line, comments=True), "&&"):
        if word in ("&&", "|", ";"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"[A-Z_]+=", word):
            words.append(word)


def _is_program(word: str) -> bool:
    return word in _KNOWN or word.startswith(".ci/") or word in _CHECKS


def faults(text: str, folder: Path = ROOT) -> list[str]:
    """Each command, option and link of a page that leads nowhere; `folder` is where the page is."""
    found = list[str]()
    for words in lines(text):
        found += [f"{' '.join(words)}: {fault}" for fault in _fault(words, whole=True)]
    for span in spans(text):
        # What is in brackets may be left out; it is looked up as the rest is.
        words = re.sub(r"[\[\]]", " ", span).split()
        if words and (words[0] in _CHECKS or words[0].startswith(".ci/")) and words[0] != ".":
            found += [f"{span}: {fault}" for fault in _fault(words, whole=False)]
        elif words and words[0].startswith("--"):
            found += [f"{span}: no option {one}" for one in _OPTION.findall(span) if one not in _options()]
    links = _LINK.findall(_FENCE.sub("", text))
    return found + [f"{link}: no such place" for link in links if not _leads(link, folder)]


def _fault(words: list[str], *, whole: bool) -> Iterator[str]:
    program, *rest = words
    if program.startswith(".ci/"):
        if not (ROOT / program).exists():
            yield "no such file"
    elif program == "taskvec":
        yield from _of_taskvec(rest, whole=whole)
    elif check := _CHECKS.get(program):
        yield from check(rest)
    elif program not in _KNOWN:
        yield f"what {program} is, tests/support/manual.py does not know"


def commands(group: click.Group = cli, before: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command of taskvec that is no group, by its words."""
    found = dict[tuple[str, ...], click.Command]()
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, (*before, name))
        else:
            found[*before, name] = command
    return found


def names(command: click.Command) -> set[str]:
    """The options of a command, in all their spellings."""
    found = {"--help", "--version"}
    for param in command.params:
        if isinstance(param, click.Option):
            found |= {*param.opts, *param.secondary_opts}
    return found


def _options() -> set[str]:
    """Every option of taskvec and of the scripts that measure it."""
    found = {name for command in commands().values() for name in names(command)}
    for script in (ROOT / "benches").rglob("*.py"):
        found |= _of_script(script)
    return found | _OTHERS_OPTIONS


def _of_script(path: Path) -> set[str]:
    return set(re.findall(r'"(--[a-z][a-z0-9-]*)"', path.read_text(encoding="utf-8")))


def _of_taskvec(words: list[str], *, whole: bool) -> Iterator[str]:
    """`whole`: the command could be given as it is, with all that it needs."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        # COMMAND stands for any.
        if not words or words[0] == "…" or words[0].startswith("-") or words[0].isupper():
            return
        name, *words = words
        if name not in command.commands:
            yield f"no command {name}"
            return
        command = command.commands[name]
    if not whole:
        given = _OPTION.findall(" ".join(words))
        yield from (f"no option {one}" for one in given if one not in names(command))
        return
    try:
        command.make_context(command.name, list(words))
    except click.UsageError as error:
        yield error.format_message()


def _pip(words: list[str]) -> Iterator[str]:
    project = _project()
    before = ""
    for word in words[1:]:
        if match := re.fullmatch(r"(?:\.|taskvec)\[(.+)\]", word):
            extras = project["project"]["optional-dependencies"]
            yield from (f"no extra {one}" for one in match[1].split(",") if one not in extras)
        if before == "--group" and word not in project["dependency-groups"]:
            yield f"no dependency group {word}"
        before = word


def _python(words: list[str]) -> Iterator[str]:
    if words and words[0] == "-m":
        if words[1] == "taskvec":
            yield from _of_taskvec(words[2:], whole=False)
    elif words and not (ROOT / words[0]).is_file():
        yield f"no file {words[0]}"
    elif words:
        known = _of_script(ROOT / words[0])
        yield from (f"no option {one}" for one in _OPTION.findall(" ".join(words)) if one not in known)


def _pytest(words: list[str]) -> Iterator[str]:
    paths = (word.partition("::")[0] for word in words if "/" in word and not word.startswith("-"))
    yield from (f"no file {path}" for path in paths if not (ROOT / path).exists())


def _cargo(words: list[str]) -> Iterator[str]:
    targets = {path.stem for path in (ROOT / "fuzz" / "targets").glob("*.rs")}
    benches = {path.stem for path in (ROOT / "rust").glob("*/benches/*.rs")}
    crates = {
        tomllib.loads(path.read_text(encoding="utf-8"))["package"]["name"]
        for path in (ROOT / "rust").glob("*/Cargo.toml")
    }
    words = [word for word in words if not word.startswith("+")]
    for before, word in itertools.pairwise(words):
        if before == "-p" and word not in crates:
            yield f"no crate {word}"
        if before == "--bench" and word not in benches:
            yield f"no benchmark {word}"
    if words[:2] == ["fuzz", "run"] and not words[2].isupper() and words[2] not in targets:
        yield f"no target {words[2]}"


def _just(words: list[str]) -> Iterator[str]:
    if words and not words[0].startswith("-") and not words[0].isupper() and words[0] not in recipes():
        yield f"no recipe {words[0]}"


def recipes() -> set[str]:
    """The recipes of the justfile."""
    text = (ROOT / "justfile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*)(?: (?:[^:=\n']|='[^']*'|=\w)*)?:(?!=)", text, re.MULTILINE))


def _tool(package: str) -> Any:
    def check(_words: list[str]) -> Iterator[str]:
        lint = _project()["dependency-groups"]["lint"]
        if not any(one.startswith(package) for one in lint):
            yield f"{package} is in no dependency group"

    return check


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _leads(link: str, folder: Path) -> bool:
    """Whether a link of a page in `folder` leads to a file, and to a heading where it names one."""
    if "://" in link:
        return True
    path, _, anchor = link.partition("#")
    there = folder / path if path else None
    if there is not None and not there.exists():
        return False
    return there is None or not anchor or anchor in anchors(there.read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """The names that headings get on a page."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_FENCE.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in plain}


_CHECKS: dict[str, Any] = {
    "taskvec": None,
    "pip": _pip,
    "python": _python,
    "pytest": _pytest,
    "cargo": _cargo,
    "just": _just,
    "ruff": _tool("ruff"),
    "pyright": _tool("pyright"),
    "typos": _tool("typos"),
}
