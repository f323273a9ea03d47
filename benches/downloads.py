"""Two plain ways to have files of the Hub, whole and one after another; each is a process that is measured.

    python benches/downloads.py huggingface_hub REPO:FILE [REPO:FILE …]   # hf_hub_download, into the cache
    python benches/downloads.py bare REPO:FILE [REPO:FILE …]              # bytes thrown away as they come

Of the Hub at HF_ENDPOINT. Prints how many bytes came.
"""

from __future__ import annotations

import http.client
import importlib
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def huggingface_hub(files: list[tuple[str, str]]) -> int:
    """As a user of the library downloads them."""
    library: Any = importlib.import_module("huggingface_hub")
    return sum(Path(library.hf_hub_download(repo, name)).stat().st_size for repo, name in files)


def bare(files: list[tuple[str, str]]) -> int:
    """The least that a client can do: ask where a file lies, and read it into one buffer again and again."""
    connections: dict[str, http.client.HTTPConnection] = {}

    def get(url: str) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        if parts.netloc not in connections:
            connections[parts.netloc] = http.client.HTTPConnection(parts.netloc)
        connections[parts.netloc].request("GET", f"{parts.path}?{parts.query}")
        return connections[parts.netloc].getresponse()

    buffer, total = bytearray(1 << 20), 0
    for repo, name in files:
        redirect = get(f"{os.environ['HF_ENDPOINT']}/{repo}/resolve/main/{name}")
        redirect.read()
        answer = get(redirect.headers["Location"])
        while got := answer.readinto(buffer):
            total += got
    return total


def main() -> None:
    """The command line."""
    way, *named = sys.argv[1:]
    files = [(repo, name) for repo, _, name in (text.partition(":") for text in named)]
    print({"huggingface_hub": huggingface_hub, "bare": bare}[way](files))


if __name__ == "__main__":
    main()
