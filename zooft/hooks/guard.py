"""The border between zooft and its plugins: what crosses it is checked, and a fault names the plugin.

Owns two things. What a plugin registers is compared, field by field, with the types in `contracts`. And each of its
functions is called under guard: an exception, or a result of another type, becomes a PluginError that names the plugin,
hook and field, what was found and what was expected. Nothing heavy is loaded for it.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import errno
import functools
import inspect
import sys
import threading
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from zooft import contracts
from zooft.contracts import (
    DeploymentPart,
    EvaluationPart,
    Family,
    Freezer,
    Head,
    PresentationPart,
    Problem,
    Source,
    Task,
    TrainingPart,
    WeightsSource,
)
from zooft.errors import PluginError, ZooftError

if TYPE_CHECKING:
    from zooft.hooks.loading import PluginInfo

T = TypeVar("T")
HOOKS: Mapping[str, type[Any]] = {
    "zooft_register_families": Family,
    "zooft_register_heads": Head,
    "zooft_register_freezers": Freezer,
    "zooft_register_tasks": Task,
    "zooft_register_weights": WeightsSource,
    "zooft_register_sources": Source,
}
"""Each registering hook and the type of what it returns."""
_NOUNS: Mapping[type[Any], str] = {WeightsSource: "weights source", Source: "data source"}
PARTS = (TrainingPart, EvaluationPart, DeploymentPart, PresentationPart)
"""Parts of a task's problem, whose functions belong to a plugin too."""
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ROWS: Mapping[tuple[type[Any], str], int] = {
    (EvaluationPart, "columns"): 1,
    (EvaluationPart, "group"): 1,
    (DeploymentPart, "columns"): 1,
    (PresentationPart, "cells"): 0,
    (PresentationPart, "worst"): 0,
    (PresentationPart, "wrong"): 0,
}
"""Functions of a problem that return columns, and the index of the argument that has as many rows."""
LARGEST_ROW = 10_000
"""Numbers that a row of a column may hold, since the rows of all samples are in memory at once."""
_SHOWN = 60
"""Characters of a value that a message shows."""


class _Module:
    """Stands for ``torch.nn.Module``, since a check mustn't load torch."""


class _Tensor:
    """Stands for ``torch.Tensor``."""


class _Array(Generic[T]):
    """Stands for numpy's arrays."""


_HEAVY: Mapping[Any, str] = {
    _Module: "torch.nn.modules.module.Module",
    _Tensor: "torch.Tensor",
    _Array: "numpy.ndarray",
}
_STAND_INS: Mapping[str, Any] = {
    "nn": types.SimpleNamespace(Module=_Module),
    "Tensor": _Tensor,
    "NDArray": _Array,
    "Arrays": tuple[_Array[Any], ...],
    "Predictions": Any,
    "Evaluation": Any,
    "Evaluated": Any,
}


_IN_WORDS: Mapping[Any, str] = {
    _Module: "a torch.nn.Module",
    _Tensor: "a torch.Tensor",
    _Array: "a numpy array",
    collections.abc.Callable: "a function",
    type(None): "None",
    None: "None",
    Any: "anything",
    str: "text",
    bool: "True or False",
    float: "a number",
    int: "a whole number",
    type: "a class",
    bytes: "bytes",
}
_ORDERED: Mapping[Any, str] = {
    tuple: "a tuple",
    frozenset: "a frozenset",
    collections.abc.Sequence: "a sequence",
    collections.abc.Iterable: "an iterable",
}


class Misfit(NamedTuple):
    """The first thing in a value that doesn't match its type: where it is, what it is, what it should be."""

    where: str
    came: Any
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A field of something that a plugin registers.

    Attributes:
        kind: its type.
        name: what it is called on the command line.
        field: of the type.
        plugin: the plugin in words; empty where nothing was registered, as in an author's own tests.
        private: whether messages must hide values, since these may name people.
    """

    kind: type[Any]
    name: str
    field: str
    plugin: str = ""
    private: bool = False

    @property
    def subject(self) -> str:
        """Such as "the head 'deep'"."""
        noun = "task" if self.kind in PARTS else _NOUNS.get(self.kind, self.kind.__name__.lower())
        return f"the {noun} {self.name}"

    @property
    def hook(self) -> str:
        """The hook that registers it."""
        kind = Task if self.kind in PARTS else self.kind
        return next(hook for hook, known in HOOKS.items() if known is kind)

    @property
    def words(self) -> str:
        """Where to fix a fault: plugin, hook and field."""
        whose = f"plugin {self.plugin}, " if self.plugin else ""
        return f"({whose}hook {self.hook}, field {self.kind.__name__}.{self.field})"

    def error(self, text: str, *, code: str = "") -> PluginError:
        """An error with the fault `text` and its place."""
        return PluginError(
            f"{self.subject} {text} {self.words}", plugin=self.plugin, hook=self.hook, field=self.field, code=code
        )

    def amiss(self, came: Any, expected: str, *, what: str = "", code: str = "") -> PluginError:
        """An error: something else than expected was returned; `what` names the part of it."""
        given = f"{what} is " if what else ""
        return self.error(f"gives in {self.field}: {given}{self.show(came)}; expected {expected}", code=code)

    def show(self, value: Any) -> str:
        """A value for a message; only its type where the task is private."""
        kind = type(value).__name__
        if value is None or self.private:
            return str(value) if value is None else f"a value of type {kind}"
        text = " ".join(repr(value).split())
        return f"{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'} ({kind})"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A plugin's function, called under guard; it can be sent to another process where the function can."""

    function: Callable[..., Any]
    place: Place
    primary: str = ""
    """For a task's metrics: the one that must be among them."""
    checked: bool = True
    """Whether its result is compared with its type."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """For `inspect.unwrap`, and so for signatures."""
        return self.function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's result, checked."""
        return self.call(self.field_words, *args, **kwargs)

    @property
    def field_words(self) -> str:
        """What failed, where the caller has no better description."""
        return f"in {self.place.field}"

    def call(self, doing: str, /, *args: Any, **kwargs: Any) -> Any:
        """The same; `doing` describes the call in messages, such as "to read a1b2".

        Raises:
            PluginError: the function failed, or returned another type than declared.
            ZooftError: raised by the function itself.
        """
        place, returned = self.place, _return_type(self.place.kind, self.place.field) if self.checked else Any  # type: ignore[arg-type]  # a class is hashable
        try:
            with redirect_prints():
                value = self.function(*args, **kwargs)
                if typing.get_origin(returned) is collections.abc.Iterable and first_misfit(returned, value) is None:
                    value = tuple(value)  # a generator fails while it is iterated
        except (ZooftError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # plugin code
            if _is_meant(error, place):
                raise
            raise self._failure(doing, error) from (None if place.private else error)
        misfit = first_misfit(returned, value)
        if self.primary and misfit is None and self.primary not in value:
            misfit = Misfit("", sorted(value), f"the primary metric, {self.primary!r}, among them")
        if misfit is None and (place.kind, place.field) in _ROWS:
            misfit = _wrong_rows(value, len(args[_ROWS[place.kind, place.field]]))
        if misfit is not None:
            raise place.amiss(misfit.came, misfit.expected, what=misfit.where, code=_code_of(self.function))
        if typing.get_origin(returned) is collections.abc.Iterator:
            return self._one_by_one(doing, value, typing.get_args(returned)[0])
        return value

    def _one_by_one(self, doing: str, items: Iterator[Any], expected: Any) -> Iterator[Any]:
        """Iterate, with each step and each item checked under guard: they may be too many to hold."""
        while True:
            try:
                with redirect_prints():
                    item = next(items)
            except StopIteration:
                return
            except (ZooftError, MemoryError):
                raise
            except (Exception, SystemExit) as error:  # plugin code
                raise self._failure(doing, error) from (None if self.place.private else error)
            misfit = first_misfit(expected, item)
            if misfit is not None:
                raise self.place.amiss(
                    misfit.came, misfit.expected, what=misfit.where or "an item", code=_code_of(self.function)
                )
            yield item

    def _failure(self, doing: str, error: BaseException) -> PluginError:
        words = type(error).__name__ if self.place.private else f"{type(error).__name__}: {error}"
        return self.place.error(f"failed {doing}: {words}", code=error_location(error, self.function))


def _wrong_rows(value: Any, rows: int) -> Misfit | None:
    """The first column whose length isn't `rows`, or whose rows are large."""
    for name, column in value.items() if isinstance(value, Mapping) else [("", value)]:
        where = f"the {{}} of [{name!r}]" if name else "the {}"
        shape = getattr(column, "shape", None)
        count = len(column) if shape is None else shape[0] if shape else 0
        if count != rows:
            return Misfit(where.format("length"), count, f"{rows}, a row each")
        if rows and shape is not None and column.size > LARGEST_ROW * rows:
            most = f"at most {LARGEST_ROW:,}, since the rows of all samples are in memory at once"
            return Misfit(where.format("numbers in a row"), column.size // rows, most)
    return None


def call_plugin(value: Any, field: str, *args: Any, doing: str | None = None, **kwargs: Any) -> Any:
    """Call a function of something that a plugin provides, registered or not, under guard.

    Args:
        value: such as a Family.
        field: the name of the function.
        args: of the function.
        doing: the call in messages, where the field's name isn't clear enough, such as "to read a1b2".
        kwargs: of the function.
    """
    function = getattr(value, field)
    guarded = function if isinstance(function, Guarded) else _guard(value, field, function, place_of(value, field))
    return guarded.call(guarded.field_words if doing is None else doing, *args, **kwargs)


def within(value: Any, field: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Guard what the function in a field has returned, such as a view or a module."""
    return Guarded(function, place_of(value, field), checked=False)


def part_within(task: Task, part: str, field: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for what a function in a part of a task's problem has returned."""
    return Guarded(function, part_place(task, part, field), checked=False)


def place_of(value: Any, field: str) -> Place:
    """The place of a field of something that a plugin provides, for faults that are found later."""
    return _place(value, field, "")


def part_place(task: Task, part: str, field: str) -> Place:
    """The same for a field in a part of a task's problem."""
    return dataclasses.replace(place_of(task, "problem"), kind=type(getattr(task.problem, part)), field=field)


def code_of(value: Any, field: str) -> str:
    """File and line of the function in a field; empty where there is none."""
    return _code_of(getattr(value, field))


def guard_functions(value: T, plugin: PluginInfo | None = None) -> T:
    """A copy with each of its own functions under guard."""
    words = f"{plugin.name} of {plugin.distribution} {plugin.version}" if plugin is not None else ""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        own = getattr(value, field.name)
        place = _place(value, field.name, words)
        if _is_function(own) and own is not field.default:
            changes[field.name] = _guard(value, field.name, own, place)
        elif isinstance(own, Mapping) and own and all(map(_is_function, own.values())):
            changes[field.name] = {key: Guarded(function, place) for key, function in own.items()}
        elif isinstance(own, Problem):
            changes[field.name] = _guard_parts(own, place)
    return dataclasses.replace(value, **changes)  # type: ignore[type-var]


def _guard_parts(problem: Problem, of: Place) -> Problem:
    """A copy with the functions of its four parts under guard, as functions of the task."""
    parts: dict[str, Any] = {}
    for name in ("training", "evaluation", "deployment", "presentation"):
        part = getattr(problem, name)
        if not isinstance(part, PARTS):
            continue  # which the check of types reports
        changes = {}
        for field in dataclasses.fields(part):
            own = getattr(part, field.name)
            if _is_function(own):
                place = dataclasses.replace(of, kind=type(part), field=field.name)
                changes[field.name] = _guard(part, field.name, own, place)
        parts[name] = dataclasses.replace(part, **changes)  # type: ignore[arg-type]  # of any of the four types
    return dataclasses.replace(problem, **parts)


def _guard(value: Any, field: str, function: Callable[..., Any], place: Place) -> Guarded:
    primary = value.primary if (type(value), field) == (EvaluationPart, "metrics") else ""
    return Guarded(function, place, primary)


def misfit_of(value: Any) -> Misfit | None:
    """The first field of one of the types in `contracts` that doesn't match its annotation, if any."""
    hints = _hints(type(value))  # type: ignore[arg-type]  # a class is hashable
    for field in dataclasses.fields(value):
        found = first_misfit(hints[field.name], getattr(value, field.name))
        if found is not None:
            if not found.where and str(field.type).startswith("Callable"):
                found = found._replace(expected=f"a function, {field.type}")
            return found._replace(where=_under(field.name, found.where))
    return None


def first_misfit(hint: Any, value: Any) -> Misfit | None:
    """The first thing in `value` that doesn't match `hint`; lists may stand for tuples, sets for frozen ones.

    Sequences that aren't lists or tuples may be too long to check, and iterators can be used only once: both pass.
    """
    if hint is Any:
        return None
    here = Misfit("", value, _words(hint))
    origin, parameters = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        found = [first_misfit(choice, value) for choice in parameters]
        return None if None in found else next((one for one in found if one is not None and one.where), here)
    if origin is Literal:
        return None if value in parameters else here
    kind = origin or hint
    if kind in _HEAVY:
        bases = {f"{base.__module__}.{base.__qualname__}" for base in type(value).__mro__}
        return None if _HEAVY[kind] in bases else here
    if not _is_of(kind, value):
        return here
    if kind is collections.abc.Mapping and parameters:
        return _first_among((_in_entry(parameters, key, item), f"[{key!r}]") for key, item in value.items())
    if kind in _ORDERED and isinstance(value, (tuple, list, Set)):
        if kind is tuple and parameters[-1:] != (...,) and len(parameters) != len(value):
            return here
        hints = parameters if kind is tuple and parameters[-1:] != (...,) else parameters[:1] * len(value)
        pairs = zip(hints, value, strict=False)
        return _first_among((first_misfit(one, item), f"[{index}]") for index, (one, item) in enumerate(pairs))
    if dataclasses.is_dataclass(kind) and kind is not contracts.Sample:  # these are many: `data.samples` checks them
        return misfit_of(value)
    return None


def _in_entry(parameters: Sequence[Any], key: Any, item: Any) -> Misfit | None:
    return first_misfit(parameters[0], key) or first_misfit(parameters[1], item)


def _first_among(found: Iterable[tuple[Misfit | None, str]]) -> Misfit | None:
    return next((one._replace(where=_under(name, one.where)) for one, name in found if one is not None), None)


def _under(outer: str, inner: str) -> str:
    return f"{outer}{inner}" if inner[:1] in ("[", "") else f"{outer}.{inner}"


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value is of a type, its parameters aside."""
    if kind is None or kind is type(None):
        return value is None
    if kind is collections.abc.Callable:
        return callable(value)
    if kind is float:  # numpy's numbers and single elements too
        return hasattr(type(value), "__float__") and getattr(value, "ndim", 0) == 0
    if kind is bool:  # numpy's too
        return type(value).__name__ in ("bool", "bool_")
    if kind is int:
        return hasattr(type(value), "__index__") and getattr(value, "ndim", 0) == 0
    if kind is tuple:
        return isinstance(value, (tuple, list))
    if kind is frozenset:
        return isinstance(value, Set)
    if kind in (collections.abc.Sequence, collections.abc.Iterable):
        return isinstance(value, kind) and not isinstance(value, (str, bytes))
    if kind is type:
        return isinstance(value, type)
    return not isinstance(kind, type) or isinstance(value, kind)


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, (type, Guarded))


def _is_meant(error: BaseException, place: Place) -> bool:
    """Whether an error isn't a plugin's fault: a full disk, or a family that reports an unknown model."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return not place.private
    return isinstance(error, KeyError) and place.field == "canonical"


@contextlib.contextmanager
def redirect_prints() -> Iterator[None]:
    """Send what a plugin prints to standard error, since a program may read standard output.

    In the main thread only, since all threads share one standard output.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _place(value: Any, field: str, plugin: str) -> Place:
    held = (getattr(value, f.name) for f in dataclasses.fields(value))
    known = next((own.place for own in held if isinstance(own, Guarded)), None)
    if known is not None and not plugin:
        return dataclasses.replace(known, kind=type(value), field=field)
    name, private = getattr(value, "name", "(its problem)"), bool(getattr(value, "private", False))
    return Place(kind=type(value), name=name, field=field, plugin=plugin, private=private)


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(
        kind, globalns={**vars(contracts), **vars(sys.modules[kind.__module__])}, localns=dict(_STAND_INS)
    )


@functools.cache
def _return_type(kind: Hashable, field: str) -> Any:
    """The return type of the function in a field, which may be optional or a mapping of functions."""
    hint = _hints(kind)[field]
    for inner in (hint, *typing.get_args(hint)):
        if typing.get_origin(inner) is collections.abc.Callable:
            return typing.get_args(inner)[1]
    return Any


def _words(hint: Any) -> str:
    """A type in words."""
    origin, parameters = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_words, parameters))
    if origin is Literal:
        return " or ".join(map(repr, parameters))
    kind = origin or hint
    if kind is collections.abc.Mapping and parameters:
        return f"a mapping of {_words(parameters[0])} to {_words(parameters[1])}"
    if kind in _ORDERED:
        each = " and ".join(_words(one) for one in parameters if one is not ...)
        return f"{_ORDERED[kind]} of {each or 'anything'}"
    return _IN_WORDS.get(kind) or f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _code_of(function: Any) -> str:
    """File and line of a function, as far as known."""
    while isinstance(function, (functools.partial, Guarded)):
        function = function.func if isinstance(function, functools.partial) else function.function
    function = getattr(function, "forward", function)  # of a torch module
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code is not None else ""


def error_location(error: BaseException, function: Any) -> str:
    """File and line of the last frame in the plugin's own code."""
    file, found = _code_of(function).rpartition(", line ")[0], ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            found = f"{file}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found or _code_of(function)
