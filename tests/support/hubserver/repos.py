"""What the server holds: repositories with branches, commits and the files of each commit."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

Files = dict[str, "Content"]

# What the Hub's own .gitattributes of a new repository sends to large-file storage.
_LARGE = ".7z .arrow .bin .bz2 .ckpt .ftz .gz .h5 .joblib .lfs.* .mlmodel .model .msgpack .npy .npz .onnx .ot"
_LARGE += " .parquet .pb .pickle .pkl .pt .pth .rar .safetensors .tar .tflite .tgz .wasm .xz .zip .zst"
ATTRIBUTES = "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in _LARGE.split()).encode()
_LARGEST_REGULAR = 10 << 20
# Below this a file is copied, so that a test may change its folder afterwards; above, it is read in place.
_COPIED = 16 << 20
_CHUNK = 1 << 20


def goes_to_lfs(path: str, size: int) -> bool:
    """Whether the Hub would keep this file in large-file storage."""
    name = path.rsplit("/", 1)[-1]
    by_name = any(fnmatch.fnmatchcase(name, f"*{end}") for end in _LARGE.split())
    # An empty file cannot be uploaded as a large one.
    return size > 0 and (by_name or size > _LARGEST_REGULAR)


@dataclass(frozen=True)
class Content:
    """The bytes of a file, wherever they lie, and what names them."""

    where: str
    size: int
    sha256: str
    git: str
    """The git blob's SHA-1."""

    def read(self) -> bytes:
        return Path(self.where).read_bytes()

    def pointer(self) -> str:
        """The git blob of the pointer file that stands for a large file."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
        return hashlib.sha1(f"blob {len(text)}\0{text}".encode()).hexdigest()


@dataclass
class Repo:
    """A model repository."""

    name: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch, or a full hash, stands for."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def commit(self, branch: str, files: Files) -> str:
        """Puts a commit on a branch, made if need be."""
        said = (
            f"{self.name} {branch} {len(self.commits)} {sorted((at, one.git) for at, one in files.items())}"
        )
        name = hashlib.sha1(said.encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name


class Store:
    """All repositories, and the contents that were uploaded."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._hashes: dict[tuple[int, int, int, int], tuple[str, str]] = {}
        self.clear()

    def clear(self) -> None:
        self.repos: dict[str, Repo] = {}
        shutil.rmtree(self.root, ignore_errors=True)
        self.blobs.mkdir(parents=True)

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    def uploaded(self, sha256: str) -> Content | None:
        """A large file that is there, whichever repository it was uploaded to."""
        where = self.blobs / sha256
        return self.content(where) if where.is_file() else None

    def content(self, where: Path) -> Content:
        """The file at `where`, hashed once for as long as it does not change."""
        stat = where.stat()
        key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            whole, git = hashlib.sha256(), hashlib.sha1(f"blob {stat.st_size}\0".encode())
            with where.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    whole.update(chunk)
                    git.update(chunk)
            self._hashes[key] = whole.hexdigest(), git.hexdigest()
        sha256, git_name = self._hashes[key]
        return Content(str(where), stat.st_size, sha256, git_name)

    def kept(self, data: bytes) -> Content:
        """Bytes, put where uploads are."""
        where = self.blobs / hashlib.sha256(data).hexdigest()
        if not where.exists():
            where.write_bytes(data)
        return self.content(where)

    def published(self, where: Path, *, hashed: bool) -> Content:
        """A file of a folder that a test publishes; a large one need not be `hashed`."""
        stat = where.stat()
        if stat.st_size <= _COPIED:
            return self.kept(where.read_bytes())
        real = os.path.realpath(where)
        if hashed:
            return self.content(Path(real))
        looks = f"{real} {stat.st_size} {stat.st_mtime_ns}".encode()
        return Content(real, stat.st_size, hashlib.sha256(looks).hexdigest(), hashlib.sha1(looks).hexdigest())

    def repo(self, name: str) -> Repo:
        """A repository, made if need be with the commit that the Hub begins one with."""
        if name not in self.repos:
            made = self.repos[name] = Repo(name)
            made.commit("main", {".gitattributes": self.kept(ATTRIBUTES)})
        return self.repos[name]
