"""Folders elsewhere, as the compiled core asks Python for their files."""

from __future__ import annotations

import gc
import json
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch

import taskvec._core as core
from families import BLOCK, write
from taskvec.errors import CorruptError, MismatchError, StorageError
from taskvec.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALPHA = ("0.5", 0.5)
ELEMENTS = 3 * BLOCK + 5
PIECE = 70_001


@dataclass
class Elsewhere:
    """A local folder that plays one elsewhere."""

    root: Path
    streams: bool
    before: Callable[[str, int], None] = lambda name, begin: None
    closed: list[str] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.files = [(path.name, path.stat().st_size) for path in sorted(self.root.iterdir())]
        self.asked: set[int] = set()

    def fetch(self, file: int, begin: int, end: int) -> Iterator[bytes]:
        name = self.files[file][0]
        self.threads.add(threading.get_ident())
        try:
            with (self.root / name).open("rb") as stream:
                stream.seek(begin)
                for at in range(begin, end, PIECE):
                    self.before(name, at)
                    yield b""
                    yield stream.read(min(PIECE, end - at))
        except GeneratorExit:
            self.closed.append(name)
            raise

    def want(self, file: int) -> None:
        self.wanted.append(self.files[file][0])

    def local(self, file: int) -> str | None:
        self.before(self.files[file][0], 0)
        if file not in self.asked:
            self.asked.add(file)
            return None
        return str(self.root / self.files[file][0])


@dataclass(frozen=True)
class Origin:
    repo: str = "org/name"
    commit: str = "0" * 40
    subfolder: str | None = None
    sha256: dict[str, str] = field(default_factory=lambda: {"model.safetensors": "f" * 64})


@dataclass(frozen=True)
class Ref:
    path: str
    name: str
    origin: Origin | None
    remote: Elsewhere | None


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trio")
    for seed, role in enumerate(("t", "g", "s")):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(ELEMENTS, generator=generator).bfloat16()
        write(root / role, {"a.weight": values, "b.weight": values[:77].clone()})
    return root


def there(folder: Path, *, streams: bool = False, **given: Any) -> Any:
    """A place that the core takes; typed loosely, as it is read attribute by attribute."""
    remote = Elsewhere(folder, streams, **given)
    return Ref(f"org/{folder.name}@main", f"org/{folder.name}", Origin(), remote)


def transfer(places: list[Any], out: Path) -> Any:
    return json.loads(core.transfer(*places, str(out), ALPHA, Options(threads=2), "card", None))


@pytest.mark.parametrize("streams", [False, True])
def test_a_run_gives_the_bytes_of_local_folders(streams: bool, trio: Path, tmp_path: Path) -> None:
    transfer([str(trio / "t"), trio / "g", str(trio / "s")], tmp_path / "here")
    places = [there(trio / "t"), there(trio / "g", streams=streams), there(trio / "s", streams=streams)]
    transfer(places, tmp_path / "there")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert places[0].remote.wanted == ["model.safetensors", "config.json"]
    assert places[1].remote.wanted == ([] if streams else ["model.safetensors"])
    assert threading.get_ident() not in places[1].remote.threads
    manifest = json.loads((tmp_path / "there" / "taskvec.json").read_bytes())
    minuend = manifest["inputs"][1]
    assert (minuend["name"], minuend["repo"], minuend["commit"]) == ("org/g", "org/name", "0" * 40)
    assert minuend.get("streamed", False) is streams
    assert minuend["files"][0]["sha256"] == "f" * 64


def test_a_check_downloads_nothing(trio: Path) -> None:
    places = [there(trio / role) for role in ("t", "g", "s")]
    plan = json.loads(core.check_transfer(*places, None, ALPHA, Options()))
    assert plan["compatible"]
    assert [given["remote"] for given in plan["inputs"]] == [True] * 3
    assert json.loads(core.inspect(places[1]))["name"] == "org/g"
    assert json.loads(core.diff(places[0], str(trio / "t"), Options(), None))["identical"]
    assert [place.remote.wanted for place in places] == [["model.safetensors"], [], []]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("error", [StorageError(None, "no network"), CorruptError("bad"), KeyError("own")])
def test_what_python_raises_comes_back_as_it_is(
    error: Exception, streams: bool, trio: Path, tmp_path: Path
) -> None:
    place = there(trio / "g", streams=streams)

    def fail(name: str, begin: int) -> None:
        # Not while the plan is made: its requests begin at the file's first byte. Downloads come after it.
        if place.remote.wanted or begin > 3 * PIECE:
            raise error

    place.remote.before = fail
    with pytest.raises(type(error)) as caught:
        transfer([str(trio / "t"), place, str(trio / "s")], tmp_path / "out")
    assert caught.value is error
    if isinstance(error, CorruptError):
        assert not (tmp_path / "out").exists()


def test_an_error_of_the_core_closes_what_was_being_fetched(trio: Path, tmp_path: Path) -> None:
    broken = tmp_path / "g"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes((trio / "g" / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(CorruptError, match=r"org/g@main/model\.safetensors: tensor `b\.weight` ends at"):
        core.inspect(there(broken))
    other = there(write(tmp_path / "o", {"a.weight": torch.zeros(3), "b.weight": torch.zeros(77)}))
    with pytest.raises(MismatchError, match=r"org/o@main/model\.safetensors: tensor `a\.weight`: its shape"):
        transfer([other, str(trio / "g"), there(trio / "s")], tmp_path / "out")

    # Both are under way when one of them fails.
    def fail(name: str, begin: int) -> None:
        if begin > 2 * BLOCK:
            raise StorageError(None, "cut")

    fine = there(trio / "g", streams=True, before=lambda name, begin: time.sleep(0.01))
    with pytest.raises(StorageError, match="cut"):
        transfer([str(trio / "t"), fine, there(trio / "s", streams=True, before=fail)], tmp_path / "out")
    assert fine.remote.closed == ["model.safetensors"]


@pytest.mark.parametrize("streams", [False, True])
def test_ctrl_c_ends_a_job_that_waits(streams: bool, trio: Path, tmp_path: Path) -> None:
    waiting = threading.Event()
    place = there(trio / "g", streams=streams)

    def wait(name: str, begin: int) -> None:
        if place.remote.wanted or begin > BLOCK:
            waiting.set()
            time.sleep(0.1)
            # A file that never arrives.
            place.remote.asked.clear()

    def interrupt() -> None:
        assert waiting.wait(20)
        signal.raise_signal(signal.SIGINT)

    place.remote.before = wait
    killer = threading.Thread(target=interrupt)
    killer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        transfer([str(trio / "t"), place, str(trio / "s")], tmp_path / "out")
    killer.join()
    assert time.monotonic() - begun < 5


def test_a_live_job_that_nobody_wants_any_more(trio: Path) -> None:
    """Its threads are on their way back into Python while the last reference goes."""
    place = there(trio / "g", streams=True)
    began = threading.Event()

    def wait(name: str, begin: int) -> None:
        if begin > BLOCK:
            began.set()
            time.sleep(0.1)

    place.remote.before = wait
    job = core.live_transfer(str(trio / "t"), place, str(trio / "s"), ALPHA, Options(threads=2))
    job.start([True, True])
    assert began.wait(20)
    del job
    gc.collect()
    assert place.remote.closed == ["model.safetensors"]
