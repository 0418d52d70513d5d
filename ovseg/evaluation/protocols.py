"""Which protocol a model is evaluated under, and which published figure stands beside it. Without torch."""

from __future__ import annotations

from dataclasses import replace

from ovseg.inference.protocol import Protocol
from ovseg.methods.registry import ZooRow, get_method, list_methods

__all__ = ["choose_protocol", "published"]


def choose_protocol(method: str, default: Protocol, data: str, name: str | None = None) -> Protocol:
    """The protocol of a model for a data set.

    Args:
        method: Of the model.
        default: Where the method has none for the data set.
        data: Name of the data set.
        name: One of the method's protocols; or a method, whose protocol for the data set is used without the
            settings of that method itself; by default the method's own for the data set, else ``default``.

    Raises:
        ValueError: There is no such protocol.
    """
    own = get_method(method).protocols
    if name is None:
        return own.get(data, default)
    if name in own:
        return own[name]
    if name in list_methods():
        theirs = get_method(name).protocols
        if data in theirs:
            fields = theirs[data].fields if name == method else {}
            return replace(theirs[data], name=f"{name}.{data}", fields=fields, paper={})
        raise ValueError(f"{name} has no protocol for {data}; it has: {', '.join(theirs)}")
    raise ValueError(
        f"{method} has no protocol {name!r}; it has: {', '.join(own)}. Or name a method: {name!r} is none"
    )


def published(row: ZooRow, data: str, protocol: Protocol, vocab: str | None = None) -> float | None:
    """The paper's mIoU in percent, if all that it depends on is as in the paper."""
    own = get_method(row.method).protocols.get(protocol.name)
    same = own is protocol and protocol.name.startswith(data) and vocab is None
    return protocol.paper.get(row.tower) if same else None
