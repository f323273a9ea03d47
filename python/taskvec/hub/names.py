"""How a user names a folder on the Hub: `org/name`, `org/name@revision`, `org/name@revision:subfolder`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError

_REF = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?P<revision>[^:]*))?(:(?P<subfolder>.*))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class HubName:
    """A folder on the Hub, as named; which commit that is, the Hub says."""

    text: str
    """As the user wrote it."""
    repo: str
    """`org/name`."""
    revision: str | None
    """Branch, tag, pull request (`refs/pr/1`) or commit; None means the default branch."""
    subfolder: str | None
    """The folder in the repository, parts joined by `/`; None means its root."""


def parse(text: str) -> HubName | None:
    """The name in `text`, or None where it has not the form of one; `UsageError` where it nearly has."""
    match = _REF.fullmatch(text)
    if match is None:
        return None
    repo, revision, subfolder = match["repo"], match["revision"], match["subfolder"]
    if revision == "":
        raise UsageError(f"{text}: no revision stands after the @; write {repo}@main, or leave the @ out")
    if subfolder is not None:
        parts = subfolder.removesuffix("/").split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in subfolder:
            raise UsageError(
                f"{text}: {subfolder!r} is not a folder of a repository; write it as part/of/path after the :"
            )
        subfolder = "/".join(parts)
    if ".." in repo or "--" in repo or repo.endswith(".git"):
        raise UsageError(f"{text}: no repository on the Hub can be called {repo}; write it as org/name")
    return HubName(text, repo, revision, subfolder)
