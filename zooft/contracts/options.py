"""Options of several parts as one dataclass, so that a task has one door for its own and its problem's."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True, slots=True)
class NoOptions:
    """No options of its own."""


def join_options(name: str, *types: type[Any]) -> type[Any]:
    """A frozen dataclass with the fields of all `types`, in their order.

    Args:
        name: of the new type.
        types: frozen dataclasses of options; each field has a default. What they check after they are made is checked.

    Raises:
        TypeError: two of them have a field of the same name, or a field has no default.
    """
    found: dict[str, tuple[str, Any, Any]] = {}
    for kind in types:
        for one in fields(kind):
            if one.name in found:
                raise TypeError(f"{name}: two parts have an option {one.name}")
            if one.default is MISSING and one.default_factory is MISSING:
                raise TypeError(f"{name}: the option {one.name} of {kind.__name__} has no default")
            given: Any = (
                {"default_factory": one.default_factory} if one.default is MISSING else {"default": one.default}
            )
            found[one.name] = (one.name, _hint(kind, one.name), field(**given, metadata=one.metadata))

    def check_all(self: Any) -> None:
        """What each part checks of its own options."""
        for kind in types:
            check = getattr(kind, "__post_init__", None)
            if check is not None:
                check(self)

    made = make_dataclass(name, list(found.values()), frozen=True, slots=True, namespace={"__post_init__": check_all})
    made.__module__ = types[0].__module__  # where pickle searches for an instance's type
    return made


def _hint(kind: type[Any], name: str) -> Any:
    return get_type_hints(kind, include_extras=True)[name]
