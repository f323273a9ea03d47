"""Parses the name of a folder on the Hub: `org/name[@revision][:subfolder]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError

_REF = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?P<revision>[^:]*))?(:(?P<subfolder>.*))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class HubName:
    """A folder on the Hub as the user named it, before its commit is known."""

    text: str
    """As the user wrote it."""
    repo: str
    """`org/name`."""
    revision: str | None
    """Branch, tag, pull request (`refs/pr/1`) or commit; None means the default branch."""
    subfolder: str | None
    """The folder in the repository, parts joined by `/`; None means its root."""


def parse(text: str) -> HubName | None:
    """The name in `text`; None if it does not have the form of one, `UsageError` if it is a faulty one."""
    match = _REF.fullmatch(text)
    if match is None:
        return None
    repo, revision, subfolder = match["repo"], match["revision"], match["subfolder"]
    if revision == "":
        raise UsageError(f"{text} has no revision after the @; write {repo}@main, or omit the @")
    if subfolder is not None:
        parts = subfolder.removesuffix("/").split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in subfolder:
            raise UsageError(
                f"{text}: {subfolder!r} is not a valid subfolder; write it after the : as folder/subfolder"
            )
        subfolder = "/".join(parts)
    if ".." in repo or "--" in repo or repo.endswith(".git"):
        raise UsageError(f"{text}: {repo} is not a valid name of a repository; write it as org/name")
    return HubName(text, repo, revision, subfolder)
