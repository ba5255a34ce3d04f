"""Reading a pickle as data: what PyTorch writes into one, and nothing that runs.

A pickle is a program: its instructions may look up any function and call it. Python's reader does so; this one knows
the instructions of `torch.save` and TorchScript alone, and makes of them plain data, tensors that point into storages
(`StoredTensor`) and, in place of every object, function or class, a `Foreign` with its name. No name is looked up, no
function of the file is called, no attribute of a Python object is set. Nothing in the pickle is trusted; Python's
`pickletools`, which takes the stream apart, is.
"""

from __future__ import annotations

import math
import pickletools
from typing import IO, Any, Callable, NamedTuple, Protocol, cast

import torch

INSTRUCTIONS = 1_000_000  # in one pickle; that of a CLIP has some 20,000
NAME_LENGTH = 500
KEY_LIMIT = 2**60  # of integers as keys: Python's hash of larger ones can be the same for all, and filling takes hours
DIMENSIONS = 16
DTYPES = {
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Double": torch.float64,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


class Unreadable(ValueError):
    """Why a file is not read, in words that follow its name."""


class Storage(NamedTuple):
    """The values of one or more tensors: their type, their name in the file, their number."""

    dtype: torch.dtype
    key: str
    length: int


class StoredTensor(NamedTuple):
    """A tensor's place in a storage, inside its bounds."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Stream(Protocol):
    """What a pickle is read from."""

    def read(self, number: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


class Foreign:
    """What stands for an object, function or class of a pickle: its dotted name, and an object's attributes."""

    __slots__ = ("attributes", "name")

    def __init__(self, name: str) -> None:
        if len(name) > NAME_LENGTH:
            raise Unreadable("its pickle has a class name without end")
        self.name = name
        self.attributes: dict[Any, object] = {}


class Pickle(NamedTuple):
    """What a pickle holds.

    Attributes:
        content: plain data (dictionaries, lists, tuples, texts, numbers; sets as lists), `StoredTensor` and `Foreign`.
            Entries of dictionaries under other keys than texts and numbers (integers below `KEY_LIMIT`) are left out.
        storages: the storages of its tensors by their names.
        foreign: the first name in it that means nothing here; "" where there is none.
    """

    content: object
    storages: dict[str, Storage]
    foreign: str


class _Mark:
    """What an instruction puts on the stack where a list of values begins."""

    __slots__ = ()


# What PyTorch calls to rebuild its own containers. These three are all the names that mean something here.
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict")
_WRAPPERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    *(f"torch.jit._pickle.{name}" for name in ("restore_type_tag", "build_boollist", "build_doublelist")),
    *(f"torch.jit._pickle.{name}" for name in ("build_intlist", "build_tensorlist")),
)
_TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.foreign = ""

    def since_mark(self) -> list[Any]:
        """Take from the stack what was put there since the last mark, and the mark."""
        at = len(self.stack) - 1
        while at >= 0 and not isinstance(self.stack[at], _Mark):
            at -= 1
        if at < 0:
            raise Unreadable("its pickle ends a list that did not begin")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def name(self, name: str) -> None:
        named = Foreign(name.replace(" ", "."))
        if not named.name.endswith("Storage") and named.name not in (*_DICTIONARIES, *_WRAPPERS, *_TENSORS):
            self.foreign = self.foreign or named.name
        self.stack.append(named)

    def name_of_two(self, _: object) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if len(module) + len(attribute) > NAME_LENGTH:  # before they are copied, as a pickle may do a million times
            raise Unreadable("its pickle has a class name without end")
        self.name(f"{module} {attribute}")

    def call(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name
        if name in _DICTIONARIES and (not arguments or name == "collections.defaultdict"):
            self.stack.append({})
        elif name in _WRAPPERS:
            self.stack.append(arguments[0])
        elif name in _TENSORS:
            # The seventh argument marks values as still to be negated or conjugated.
            self.stack.append(Foreign("torch.Tensor") if any(arguments[6:7]) else _tensor(*arguments[:4]))
        else:
            self.stack.append(Foreign(name))

    def call_with_keywords(self, _: object) -> None:
        del self.stack[-2:]
        self.stack.append(Foreign(self.stack.pop().name))

    def set_state(self, _: object) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Foreign) and isinstance(state, dict):
            target.attributes = state  # no copy, of which a pickle could order a million

    def storage(self, _: object) -> None:
        storage = _storage(self.stack.pop())
        self.stack.append(storage)
        if isinstance(storage, Storage) and self.storages.setdefault(storage.key, storage) != storage:
            raise Unreadable(f"its storage {storage.key[:20]!r} has two types or sizes")

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Foreign):
            raise Unreadable("its pickle appends to what is no list")

    def fill(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            # Python computes the hash of a tuple by recursion without a limit, and no weight is named by one.
            pairs = zip(values[::2], values[1::2])
            target.update((key, value) for key, value in pairs if _is_key(key))
        elif not isinstance(target, Foreign):
            raise Unreadable("its pickle fills what is no dictionary")

    def join(self, number: int) -> None:
        values = self.stack[-number:]
        del self.stack[-number:]
        self.stack.append(tuple(values))

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]


_Action = Callable[[_Machine, Any], None]
_VALUES = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"),
)
_ACTIONS: dict[str, _Action] = {
    **{name: lambda machine, value: machine.stack.append(value) for name in _VALUES},
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_SET": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.join(1),
    "TUPLE2": lambda machine, _: machine.join(2),
    "TUPLE3": lambda machine, _: machine.join(3),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.fill([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_of_two,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.storage,
}


def read_pickle(file: Stream) -> Pickle:
    """Read one pickle of protocol 2 or newer, from where `file` stands to the pickle's end.

    Raises:
        Unreadable: it has more than `INSTRUCTIONS`, an instruction that PyTorch does not write, or a tensor outside its
            storage.
        Exception: of many kinds, for a stream that is cut off or no pickle.
    """
    machine = _Machine()
    for count, (code, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
        if code.name == "STOP":
            break
        if count == INSTRUCTIONS:
            raise Unreadable(f"its pickle has more than {INSTRUCTIONS:,} instructions")
        if code.name not in _ACTIONS:
            raise Unreadable(f"its pickle has the instruction {code.name}, which PyTorch does not write")
        _ACTIONS[code.name](machine, argument)
    return Pickle(machine.stack.pop(), machine.storages, machine.foreign)


def _is_key(key: object) -> bool:
    """Whether a weight or an entry can be named so, and a dictionary of such keys is filled in time."""
    return isinstance(key, (str, bytes, float)) or (isinstance(key, int) and abs(key) < KEY_LIMIT)


def _storage(persistent: object) -> Storage | Foreign:
    """A storage as PyTorch notes it: ("storage", its class, its name, the device it was on, number of values, ...)."""
    if not isinstance(persistent, tuple) or len(persistent) not in (5, 6) or persistent[0] != "storage":
        raise Unreadable("its pickle notes a storage in a way that PyTorch does not")
    kind, key, length = persistent[1], persistent[2], persistent[4]
    name = kind if isinstance(kind, Foreign) else Foreign(kind)
    if not isinstance(key, str) or not _count([length]):
        raise Unreadable("its pickle notes a storage in a way that PyTorch does not")
    if len(persistent) == 6 and persistent[5] is not None:
        raise Unreadable("its pickle has a view of a storage, which PyTorch has not written since 0.4")
    dtype = DTYPES.get(name.name.split(".")[-1].replace("Storage", ""))
    return Storage(dtype, key, length) if dtype else name


def _tensor(storage: object, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> StoredTensor | Foreign:
    """A tensor of a storage, after a check that it lies inside and has no more values."""
    if isinstance(storage, Foreign):
        return Foreign(f"torch.Tensor of {storage.name}"[:NAME_LENGTH])
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise Unreadable("its pickle builds a tensor in a way that PyTorch does not")
    if len(size) != len(stride) or len(size) > DIMENSIONS or not _count([offset, *size, *stride]):
        raise Unreadable("its pickle has a tensor of wrong size, stride or offset")
    number = math.prod(size)
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride)) if number else offset - 1
    if last >= storage.length or number > storage.length:
        raise Unreadable(f"its tensor of size {size} claims more than the {storage.length} values of its storage")
    return StoredTensor(storage, offset, size, stride)


def _count(values: list[Any]) -> bool:
    """Whether all are integers that can be a number of values or a position."""
    return all(type(value) is int and 0 <= value < 2**48 for value in values)
