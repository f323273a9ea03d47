"""Parts as tasks of a Ray cluster on this machine; run where Ray is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import taskvec
from hostile import PARTIAL, SLOW_ENV, call, refused, trio
from parted import assert_equal, family, record
from taskvec.jobs.cluster import run_on_ray

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
# Ray leaves sockets and files to the collector, and warns about what it means to change.
quiet = pytest.mark.filterwarnings("ignore")
PARTS = 5
MB = 1 << 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def single(inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single") / "out"
    taskvec.transfer(*inputs, out)
    return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that runs nothing, and two nodes with one CPU each."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", **SLOW_ENV}
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * MB}
    found = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        add_node(found)
    yield found
    found.shutdown()
    for name in SLOW_ENV:
        del os.environ[name]


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80 * MB, memory=2000 * MB)


def planned(inputs: tuple[Path, Path, Path], root: Path, parts: int = PARTS, **more: Any) -> taskvec.Job:
    return taskvec.plan("transfer", *inputs, out=root / "out", parts=parts, job=root / "job", **more)


def test_without_ray(
    inputs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskvec.jobs.cluster.find_spec", lambda _name: None)
    job = planned(inputs, tmp_path)
    refused(call(["run", job.folder, "--ray"]), 2, 'Ray is not installed; pip install "taskvec[ray]"')


@needs_ray
@quiet
@pytest.mark.slow
def test_all_parts_and_the_commit(
    cluster: Any, inputs: tuple[Path, Path, Path], single: Path, tmp_path: Path
) -> None:
    job = planned(inputs, tmp_path)
    job.run(2)
    before = record(job, 2).read_bytes()
    seen: list[tuple[int, int]] = []
    result = run_on_ray(job, cluster.address, progress=lambda _phase, done, total: seen.append((done, total)))
    assert result.files == len(list((tmp_path / "out").rglob("*.*")))
    assert record(job, 2).read_bytes() == before
    assert seen[-1][0] <= seen[-1][1]
    assert_equal(tmp_path / "out", single)
    # Once more: nothing is left to do, and no cluster is needed for that.
    assert call(["run", job.folder, "--ray", "127.0.0.1:1"])[0] == 0


@needs_ray
@quiet
@pytest.mark.slow
def test_nothing_passes_through_the_object_store(
    cluster: Any, inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        run_on_ray(planned(inputs, tmp_path), cluster.address)
        # The connection of the caller is kept, and can be asked.
        assert ray.is_initialized()
        total = ray.cluster_resources()["object_store_memory"]
        assert total - ray.available_resources().get("object_store_memory", 0) < 1 * MB
    finally:
        ray.shutdown()


@needs_ray
@quiet
@pytest.mark.slow
def test_an_error_ends_the_run(cluster: Any, inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    mine = [shutil.copytree(one, tmp_path / one.name) for one in inputs]
    job = planned((mine[0], mine[1], mine[2]), tmp_path)
    os.utime(mine[1] / "model-00001-of-00002.safetensors")
    refused(call(["run", job.folder, "--ray", cluster.address]), 3, "was changed since the job was planned")
    assert not (tmp_path / "out" / "taskvec.json").exists()


@needs_ray
@quiet
@pytest.mark.slow
def test_a_cluster_that_is_not_there(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    job = planned(inputs, tmp_path)
    refused(
        call(["run", job.folder, "--ray", "127.0.0.1:1"]), 4, "the Ray cluster 127.0.0.1:1 cannot be reached"
    )


def raylet(node: Any) -> int:
    """The process of a node."""
    return node.all_processes["raylet"][0].process.pid


def parents(process: int) -> list[int]:
    """The processes above another one."""
    found: list[int] = []
    while process > 1:
        status = Path(f"/proc/{process}/status").read_text()
        process = int(re.findall(r"PPid:\s*(\d+)", status)[0])
        found.append(process)
    return found


@needs_ray
@quiet
@pytest.mark.slow
def test_a_node_dies(cluster: Any, tmp_path: Path) -> None:
    """Its part is done again by another, and goes on from where it was."""
    folders = trio(tmp_path / "in", 36 << 20)
    taskvec.transfer(*folders, tmp_path / "single", rounding="stochastic")
    job = planned(folders, tmp_path, 2, rounding="stochastic")
    # In place of the one that dies; only the main thread can do this.
    add_node(cluster)
    killed: list[int] = []

    def kill() -> None:
        """Takes away the first node that has computed something."""
        attempts, deadline = Path(job.folder) / "attempts", time.monotonic() + 120
        while time.monotonic() < deadline:
            for path in attempts.glob("*.journal"):
                part, worker = (int(one) for one in re.findall(r"\d+", path.name)[:2])
                if path.exists() and path.stat().st_size > 1000:
                    above = parents(worker)
                    node = next(one for one in cluster.worker_nodes if raylet(one) in above)
                    cluster.remove_node(node, allow_graceful=False)
                    killed.append(part)
                    return
            time.sleep(0.002)

    failed: list[BaseException] = []

    def killing() -> None:
        try:
            kill()
        except BaseException as error:
            failed.append(error)

    killer = threading.Thread(target=killing)
    killer.start()
    run_on_ray(job, cluster.address, threads=1, memory="16MiB")
    killer.join()
    assert failed == []
    (part,) = killed
    document = json.loads(record(job, part).read_text().splitlines()[0])
    assert document["how"]["resumed"] > 0
    assert_equal(tmp_path / "out", tmp_path / "single")
    assert not (tmp_path / "out" / PARTIAL).exists()
    shutil.rmtree(tmp_path / "in")
