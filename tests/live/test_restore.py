"""A live model is put back bit for bit, whatever ends the block or keeps it from being entered."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch

import taskvec
from families import generator, noise, write
from livemodels import assert_state, enter, holder, load, state
from taskvec import CorruptError, MismatchError
from taskvec.live import change, inject

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from families import Tensors


@pytest.mark.parametrize("originals", ["folder", "cpu"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block(
    qwen: Path, model: PreTrainedModel, error: type[BaseException], originals: Any
) -> None:
    before = state(model)

    threads = torch.get_num_threads()

    def block() -> None:
        with taskvec.Vector(qwen / "v").applied(model, originals=originals):
            assert torch.get_num_threads() == threads
            assert inject.unlike(model, qwen / "t")
            raise error

    with pytest.raises(error):
        block()
    assert_state(model, before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("originals", ["folder", "cpu"])
@pytest.mark.parametrize("moved", [torch.float32, torch.float64])
def test_a_model_that_is_cast_in_the_block(
    qwen: Path, model: PreTrainedModel, moved: torch.dtype, originals: Any
) -> None:
    """Its parameters lie elsewhere in memory then, as after `.to("cuda")`."""
    before = {name: value.to(moved) for name, value in state(model).items()}
    with taskvec.Vector(qwen / "v").applied(model, originals=originals):
        model.to(moved)
    assert_state(model, before)


def test_a_model_that_is_rebuilt_in_the_block(qwen: Path, model: PreTrainedModel) -> None:
    def block() -> None:
        with taskvec.Vector(qwen / "v").applied(model):
            model.to("meta")

    with pytest.raises(CorruptError, match="is left modified: load it again"):
        block()


@pytest.mark.parametrize("originals", ["folder", "cpu"])
@pytest.mark.parametrize("nth", [1, 7, 23])
def test_ctrl_c_while_it_goes_in(
    qwen: Path, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, originals: Any, nth: int
) -> None:
    before, same, count = state(model), change.holds, 0

    def interrupted(a: Tensor, b: Tensor) -> bool:
        nonlocal count
        count += 1
        if count == nth:
            signal.raise_signal(signal.SIGINT)
        return same(a, b)

    monkeypatch.setattr(change, "holds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        enter(taskvec.Vector(qwen / "v").applied(model, originals=originals))
    assert count == nth
    assert_state(model, before)


def test_ctrl_c_while_the_core_works(tmp_path: Path) -> None:
    rng = generator("large")
    t = {"big.weight": noise((12 << 20,), torch.bfloat16, rng)}
    for role, scale in (("t", 1), ("g", 3), ("s", 2)):
        write(tmp_path / role, {"big.weight": t["big.weight"] * scale})
    model = holder(t)
    before = state(model)

    def again_and_again(timer: threading.Timer) -> None:
        timer.start()
        while True:
            enter(taskvec.transferred(model, tmp_path / "g", tmp_path / "s", target=tmp_path / "t"))

    for delay in (0.0, 0.01, 0.05):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            again_and_again(timer)
        timer.join()
        assert_state(model, before)


@pytest.mark.parametrize("held", [True, False], ids=["held", "too early to be held"])
def test_ctrl_c_waits_until_the_model_is_itself_again(
    qwen: Path, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    before, read = state(model), inject._core.live_read

    def interrupted(*args: Any) -> Any:
        monkeypatch.setattr(inject._core, "live_read", read)
        if not held:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)
        return read(*args)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), taskvec.Vector(qwen / "v").applied(model):
        monkeypatch.setattr(inject._core, "live_read", interrupted)
    assert_state(model, before)
    assert signal.getsignal(signal.SIGINT) is handler


def test_another_thread_may_do_it(qwen: Path, model: PreTrainedModel) -> None:
    before, seen = state(model), []

    def work() -> None:
        with taskvec.Vector(qwen / "v").applied(model) as done:
            seen.append(done)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(seen) == 1
    assert_state(model, before)


@pytest.mark.parametrize("change", ["bytes", "gone", "config"])
def test_a_target_that_changes_in_between(qwen: Path, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "t"
    shutil.copytree(qwen / "t", folder)
    model = load(folder, torch.float32)
    clone = {name: parameter.data.clone() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.data = clone[name]
    model.tie_weights()

    def spoil() -> None:
        shard = sorted(folder.glob("*.safetensors"))[0]
        if change == "gone":
            shutil.rmtree(folder)
        elif change == "bytes":
            shard.write_bytes(shard.read_bytes()[:-2] + b"\x00\x01")
        else:
            config = folder / "config.json"
            config.write_text(config.read_text().replace('"tie_word_embeddings": true', '"x": 1'))

    before = state(model)
    changed: Tensors = {}

    def block() -> None:
        with taskvec.Vector(qwen / "v").applied(model):
            changed.update(state(model))
            spoil()

    with pytest.raises(CorruptError, match="left modified: load it again") as caught:
        block()
    assert str(folder) in str(caught.value)
    assert_state(model, changed)
    if change == "gone":
        shutil.copytree(qwen / "t", folder)
        model = load(folder, torch.float32)
        with taskvec.Vector(qwen / "v").applied(model, originals="cpu"):
            shutil.rmtree(folder)
        assert_state(model, before)


def test_an_input_that_changes_while_it_goes_in(
    qwen: Path, tmp_path: Path, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    donor = tmp_path / "g"
    shutil.copytree(qwen / "g", donor)
    before, match = state(model), change.carriers

    def touching(*args: Any) -> Any:
        # The job is planned and not yet started: it will find out at its end.
        for path in donor.glob("*.safetensors"):
            os.utime(path, (1, 1))
        return match(*args)

    monkeypatch.setattr(change, "carriers", touching)
    with pytest.raises(CorruptError, match="changed while it was read") as caught:
        enter(taskvec.transferred(model, donor, qwen / "s"))
    assert "left modified" not in str(caught.value)
    assert_state(model, before)


@pytest.mark.parametrize("originals", ["folder", "cpu"])
def test_other_values_than_the_folders(qwen: Path, model: PreTrainedModel, originals: Any) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    with torch.no_grad():
        model.get_parameter(name)[-1, -1] += 1
    before = state(model)
    with pytest.raises(MismatchError, match=rf"parameter `{name}` differs from .*target"):
        enter(taskvec.Vector(qwen / "v").applied(model, originals=originals))
    assert_state(model, before)
    assert inject.unlike(model, qwen / "t") == (name,)
    # Also where the vector would leave it alone: the model would not be the written checkpoint.
    with pytest.raises(MismatchError, match=name):
        enter(taskvec.Vector(qwen / "v").applied(model, exclude=["mlp"]))


def test_one_in_the_other(qwen: Path, model: PreTrainedModel) -> None:
    before, vector = state(model), taskvec.Vector(qwen / "v")
    with vector.applied(model, 1.0):
        inside = state(model)
        with (
            pytest.raises(MismatchError, match="leave other `applied` blocks first"),
            vector.applied(model, 1.0),
        ):
            pass
        assert_state(model, inside)
    assert_state(model, before)
