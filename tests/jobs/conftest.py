"""What the tests of jobs share: inputs, what a single run makes of them, a job of as many parts as files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import taskvec
from parted import Inputs, family, planned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Inputs, Path]]:
    """Inputs to be read only, and what a single run makes of them."""
    root = tmp_path_factory.mktemp("family")
    inputs = family(root)
    taskvec.transfer(*inputs, root / "single")
    yield inputs, root / "single"
    shutil.rmtree(root)


@pytest.fixture
def inputs(shared: tuple[Inputs, Path]) -> Inputs:
    return shared[0]


@pytest.fixture
def single(shared: tuple[Inputs, Path]) -> Path:
    return shared[1]


@pytest.fixture
def mine(inputs: Inputs, tmp_path: Path) -> Inputs:
    """Copies that a test may change, with the times of the originals."""
    t, g, s = (shutil.copytree(one, tmp_path / one.name) for one in inputs)
    return t, g, s


@pytest.fixture
def job(inputs: Inputs, tmp_path: Path) -> taskvec.Job:
    return planned(inputs, tmp_path)
