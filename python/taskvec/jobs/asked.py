"""What a job was asked to do: how its plan keeps it, and how every machine opens the inputs again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

from ..card import Card, graft_card, vector_card
from ..errors import UsageError
from ..fit.grafts import graft_options, grafts
from ..fit.merge import opened
from ..inputs.session import Session
from ..options import Options, parse_alpha, spread_alphas, vector_list, vector_options
from ..text import one_of
from ..verbs import apply_card, transfer_card

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from ..inputs.refs import Folder, Ref
    from ..options import Alpha
    from ..records import Json

Verb = Literal["transfer", "apply", "graft", "extract"]
"""The verbs that a job can be planned for."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the core reads it, valid as long as its inputs are open."""

    verb: str
    places: list[Ref]
    """The target first, if there is one."""
    alphas: list[tuple[str, float]]
    takes: list[list[str]]
    """What is taken from each donor of a graft."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A request with what Python found out about its inputs."""

    request: Request
    options: Options
    card: Card
    session: Session
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A verb with its arguments."""

    verb: Verb
    refs: tuple[Folder, ...]
    alphas: tuple[tuple[str, float], ...]
    takes: tuple[tuple[str, ...], ...]
    options: Options

    @classmethod
    def of(cls, verb: str, inputs: tuple[Any, ...], options: Options, more: dict[str, Any]) -> Self:
        """Reads the arguments of a verb; `UsageError` if it cannot be planned, or takes others."""
        kind = cast("Verb", one_of("verb", verb, Verb))
        extra = {"transfer": {"alpha"}, "apply": {"alpha"}, "graft": {"take", "more"}, "extract": set[str]()}
        if unknown := sorted(more.keys() - extra[kind]):
            raise UsageError(f"{unknown[0]} is not an argument of {kind}")
        expected = {"transfer": 3, "apply": 2, "graft": 2, "extract": 2}[kind]
        if len(inputs) != expected:
            raise UsageError(f"{kind} takes {expected} inputs, not {len(inputs)}")
        if kind == "extract":
            return cls(kind, inputs, (), (), vector_options(options))
        if kind == "transfer":
            alpha: Alpha = more.get("alpha", 1.0)
            return cls(kind, inputs, (parse_alpha(alpha),), (), options)
        if kind == "apply":
            vectors = vector_list(inputs[1])
            alphas = spread_alphas(more.get("alpha", 1.0), len(vectors))
            return cls(kind, (inputs[0], *vectors), tuple(alphas), (), options)
        wanted = grafts(inputs[1], more.get("take", ()), more.get("more", ()))
        donors, takes = zip(*wanted, strict=True)
        return cls(kind, (inputs[0], *donors), (), takes, graft_options(options))

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads what `to_json` gave."""
        options = {name: _tuples(value) for name, value in json["options"].items()}
        alphas = tuple((text, float(number)) for text, number in json["alphas"])
        takes = tuple(tuple(patterns) for patterns in json["takes"])
        return cls(json["verb"], tuple(json["refs"]), alphas, takes, Options(**options))

    def to_json(self, opened: Request) -> Json:
        """A JSON object with which any machine opens the same inputs: absolute paths, pinned commits."""
        refs = [one.pinned if one.remote else str(Path(one.path).absolute()) for one in opened.places]
        options = asdict(self.options)
        del options["claims"]
        # As text, so that no reader of JSON rounds it.
        alphas = [[text, repr(number)] for text, number in self.alphas]
        return {"verb": self.verb, "refs": refs, "alphas": alphas, "takes": self.takes, "options": options}

    def done_by(self, options: Options, names: Iterable[str]) -> Self:
        """The same request, carried out with the options of these names."""
        return replace(
            self, options=replace(self.options, **{name: getattr(options, name) for name in names})
        )

    @contextmanager
    def opened(self, progress: object = None) -> Generator[Opened]:
        """Opens the inputs, as the verb itself does."""
        if self.verb == "extract":
            with Session(self.options, progress) as session:
                places = session.donors(*self.refs)
                card = vector_card(places[0], places[1], self.options)
                request = Request(self.verb, places, [], [])
                yield Opened(request, self.options, card, session, (), ())
            return
        target, *donors = self.refs
        with opened(target, donors, self.options, progress) as inputs:
            takes = [list(patterns) for patterns in self.takes]
            if self.verb == "graft":
                taken = list(zip(inputs.donors, takes, strict=True))
                card = graft_card(inputs.target, taken, self.options)
            elif self.verb == "apply":
                card = apply_card(inputs, list(self.alphas))
            else:
                card = transfer_card(inputs, self.alphas[0])
            request = Request(self.verb, [inputs.target, *inputs.donors], list(self.alphas), takes)
            found = inputs.found
            yield Opened(
                request, inputs.options, card, inputs.session, tuple(found.notes), tuple(found.warnings)
            )


VERBS: tuple[Verb, ...] = get_args(Verb)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, cast("list[Any]", value))) if isinstance(value, list) else value
