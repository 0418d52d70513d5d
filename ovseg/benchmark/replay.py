"""Recording what a model's towers return, and playing it back, so that the rest can be timed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovseg.dense.readout import Readout

__all__ = ["Replay", "towers_of"]


class Replay:
    """Stands in for a function of an object: passes calls on and keeps them, then gives the answers again.

    Args:
        owner: The object.
        name: Of its function.
        plain: Of the arguments: what is run as the bare tower; the function itself by default.
    """

    def __init__(self, owner: Any, name: str, plain: Callable[..., Any] | None = None) -> None:
        self.owner, self.name = owner, name
        self.function: Callable[..., Any] = getattr(owner, name)
        self._plain = plain or self.function
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._answers: list[Any] = []
        self._seen: list[Any] = []  # what a feedback was called with
        self._turn = 0

    @property
    def images(self) -> int:
        """How many images were recorded."""
        return sum(len(arguments[0]) for arguments, _ in self._calls)

    def record(self) -> None:
        """From now on calls are kept."""
        setattr(self.owner, self.name, self._recorded)

    def play(self) -> None:
        """From now on the answers come from the record, in order."""
        self._turn = 0
        setattr(self.owner, self.name, self._played)

    def stop(self) -> None:
        """From now on the object is as it was."""
        setattr(self.owner, self.name, self.function)

    def again(self) -> None:
        """The recorded calls once more; a feedback has its result at hand."""
        self.stop()
        for arguments, named in self._calls:
            self.function(*arguments, **named)

    def bare(self) -> None:
        """The bare tower on what it was called with."""
        self.stop()
        for arguments, _ in self._calls:
            self._plain(*arguments)

    def _recorded(self, *arguments: Any, **named: Any) -> Any:
        kept = dict(named)
        feedback = named.get("feedback")
        if feedback is not None:

            def listening(features: Any) -> Any:
                returned = feedback(features)
                self._seen.append(features)
                kept["feedback"] = lambda _: returned
                return returned

            named["feedback"] = listening
        self._answers.append(self.function(*arguments, **named))
        self._calls.append((arguments, kept))
        return self._answers[-1]

    def _played(self, *arguments: Any, feedback: Callable[[Any], Any] | None = None, **named: Any) -> Any:
        turn, self._turn = self._turn, self._turn + 1
        if feedback is not None:
            feedback(self._seen[turn])
        return self._answers[turn]


def towers_of(model: Any) -> list[Replay]:
    """The towers of a training-free method's model, CLIP's visual tower first."""
    visual = model.clip.visual
    towers = [Replay(visual, "forward_dense", lambda image, *_: visual.forward_dense(image, Readout()))]
    auxiliary, sam = (getattr(model.method, name, None) for name in ("auxiliary", "sam"))
    if auxiliary is not None:
        plain = auxiliary.forward
        for name in ("forward", "read_taps"):  # a method calls one of them
            if hasattr(auxiliary, name):
                towers.append(Replay(auxiliary, name, lambda image, *_: plain(image)))
    if sam is not None:
        encode = sam.encode
        towers.append(Replay(sam, "encode", lambda picture: encode(picture).finish()))
    return towers
