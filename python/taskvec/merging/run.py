"""Merges: reads a file, opens its models, and has the core write or plan what it asks for."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

import taskvec._core as _core

from ..card import recipe_card
from ..check_result import CheckResult
from ..errors import CorruptError, StorageError, UsageError
from ..fit.merge import opened
from ..inputs.yaml_lines import Lines, parse_all
from ..options import Keywords, make_options, output_path
from ..verbs import finished
from .document import Asked, Builder, base_of, explained, model_names
from .models import Model
from .recipe import Reader

if TYPE_CHECKING:
    import os
    from collections.abc import Generator

    from ..fit.merge import Inputs
    from ..inputs.refs import Ref
    from ..options import Options
    from ..records import Json
    from ..results import WriteResult
    from .recipe import Document

# A manifest has a line for every tensor.
_LARGEST = 100_000_000


@dataclass(frozen=True, slots=True)
class MergeGroup:
    """Tensors of a merge that get the same parameters."""

    layers: str
    """First and last of their layers; empty for tensors of no layer."""
    example: str
    tensors: int
    parameters: str


@dataclass(frozen=True, slots=True)
class _Opened:
    asked: Asked
    refs: list[Ref]
    inputs: Inputs
    text: str

    @property
    def document(self) -> str:
        return json.dumps(self.asked.document)


def merge(
    config: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> WriteResult:
    """Writes to the new folder `out` what mergekit's YAML file `config` asks for.

    Models are folders, relative to the working directory, or refs on the Hub. Arithmetic is float32 in
    mergekit's order of operations and is rounded once, to `out_dtype`, `dtype`, or the models' own. What is
    drawn at random depends on `seed`, and not on threads, memory or interruptions.

    Raises:
        UsageError: The file is not a merge, with its name and line.
        MismatchError: The models do not fit together.
    """
    opts, where = make_options(options), output_path(out)
    with _opened(config, opts, progress) as found:
        named = list(zip(found.asked.inputs, found.refs, strict=True))
        card = recipe_card(found.asked.document["method"], found.text, named, opts)
        found.asked.notes += card.notes
        answer: Json = json.loads(
            _core.merge(found.refs, found.document, where, found.inputs.options, card.text, progress)
        )
        _tell(answer, found)
        return finished(answer, found.inputs.session, card)


def plan(
    config: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    **options: Unpack[Keywords],
) -> CheckResult:
    """Plans what `merge` would do, from headers alone."""
    opts, where = make_options(options), None if out is None else output_path(out)
    with _opened(config, opts, None) as found:
        plan: Json = json.loads(_core.check_merge(found.refs, found.document, where, found.inputs.options))
        _tell(plan, found)
        plan["warnings"] += found.inputs.session.unchecked()
        donors = [ref for ref in found.refs if ref is not found.inputs.target]
        plan["download"] = found.inputs.session.traffic(found.inputs.target, donors)
        return CheckResult.from_json(plan)


def explain_merge(config: str | os.PathLike[str], **options: Unpack[Keywords]) -> tuple[MergeGroup, ...]:
    """What each group of tensors of a merge will get, from headers alone."""
    with _opened(config, make_options(options), None) as found:
        return tuple(MergeGroup(*row) for row in explained(found.asked))


def _tell(answer: Json, found: _Opened) -> None:
    answer["notes"] += [*found.asked.notes, *found.inputs.found.notes]
    answer["warnings"] += [*found.asked.warnings, *found.inputs.found.warnings]


@contextmanager
def _opened(config: str | os.PathLike[str], options: Options, progress: object) -> Generator[_Opened]:
    text = _read(Path(config))
    if text.lstrip().startswith("{") and (found := _manifest(text)) is not None:
        with _repeated(found, str(config), options, progress) as again:
            yield again
        return
    document = _document(text, str(config))
    names = model_names(document)
    leader = base_of(document) or document.slices[0].sources[0].model
    others = [name for name in names if name != leader]
    for name in names:
        if "+" in name:
            raise UsageError(
                f"{config}: {name}: an adapter has to be applied first; write the model that"
                f" `taskvec apply {name.replace('+', ' ', 1)} -o MERGED` makes"
            )
    with opened(leader, others, options, progress) as inputs:
        refs = dict(zip([leader, *others], [inputs.target, *inputs.donors], strict=True))
        models = {name: Model.open(name, ref) for name, ref in refs.items()}
        asked = Builder(document, models, seed=options.seed, dtype=_LONG.get(options.dtype or "")).build()
        # The document has the type of the output.
        inputs = replace(inputs, options=replace(inputs.options, dtype=None))
        yield _Opened(asked, [refs[name] for name in names], inputs, text)


_LONG = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


def _manifest(text: str) -> Json | None:
    """The manifest in a text; None if it is something else, such as YAML in braces."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_one = isinstance(found, dict) and str(cast("Json", found).get("schema")).startswith(
        "taskvec/manifest/"
    )
    return cast("Json", found) if is_one else None


@contextmanager
def _repeated(manifest: Json, name: str, options: Options, progress: object) -> Generator[_Opened]:
    """The merge that an output's manifest describes; models are found by name, as in a card's command."""
    if manifest.get("verb") != "merge":
        raise UsageError(
            f"{name} is the manifest of {manifest.get('verb')}, not of merge; give a merge's, or YAML"
        )
    try:
        recipe = manifest["recipe"]
        document: Json = recipe["document"]
        origins: dict[str, str] = {one["role"]: _ref(one) for one in manifest["inputs"]}
        models = (at for at in range(len(origins)) if at != document["base"])
        order = {at: f"model {number}" for number, at in enumerate(models, 1)}
        names: list[str] = [origins[order.get(at, "base")] for at in range(len(origins))]
        options = replace(options, rounding=recipe["rounding"], seed=recipe["seed"] or 0)
        leader = names[int(document["sidecars_from"])]
    except (KeyError, TypeError, IndexError, AttributeError):
        raise CorruptError(f"{name} is not a manifest as taskvec writes it; write the output again") from None
    if len(set(names)) != len(names):
        raise UsageError(
            f"{name}: two of its models have the same name; merge with the recipe, which has paths"
        )
    others = [one for one in names if one != leader]
    with opened(leader, others, options, progress) as inputs:
        refs = dict(zip([leader, *others], [inputs.target, *inputs.donors], strict=True))
        text = f"# that of {Path(name).parent.name}/taskvec.json"
        yield _Opened(Asked(document, names), [refs[one] for one in names], inputs, text)


def _ref(entry: Json) -> str:
    """The model that a manifest names, as in a command."""
    if "repo" not in entry:
        return entry["name"]
    return f"{entry['repo']}@{entry['commit']}" + (f":{entry['subfolder']}" if "subfolder" in entry else "")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise UsageError(f"{path} has more than {_LARGEST} bytes; a merge is a short YAML file")
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text; a merge is a YAML file") from None
    except OSError as error:
        raise StorageError(error.errno, f"{path}: {error.strerror}; name a YAML file", str(path)) from None


def _document(text: str, name: str) -> Document:
    lines = Lines(name)
    documents = parse_all(text, lines)
    if len(documents) != 1:
        raise UsageError(
            f"{name} has {len(documents)} documents; a merge is one. Write each into a file of its own, and"
            " run them in order (mergekit-multi's names of other documents are folders then)"
        )
    if not isinstance(documents[0], dict):
        raise UsageError(f"{name}:1: a merge is a mapping of keys to values, beginning with 'merge_method:'")
    return Reader(lines, (0,)).document(cast("Json", documents[0]))
