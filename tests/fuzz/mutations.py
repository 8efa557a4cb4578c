"""Ways to damage a file: its bytes, or, where it is a protobuf message, what its fields say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

Rng = np.random.Generator

INTEGERS = (
    *(0, 1, -1, 2, 3, -2, 7, 16, 100, 255, 4096, 10**6, 10**9),
    *(2**31 - 1, 2**31, 2**32, -(2**31), 2**33, 2**40, 2**62, 2**63 - 1, -(2**63)),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "ai.onnx", "com.microsoft", "a\0b", "../up", "\u202e", "é" * 300, "NaN", "-1")


def damage_bytes(data: bytes, rng: Rng) -> bytes:
    """Flip bits, or overwrite, cut, remove, repeat or insert bytes."""
    damaged = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        at = int(rng.integers(len(damaged) + 1))
        length = int(rng.integers(1, 17))
        match rng.integers(7):
            case 0 | 1 if damaged:
                damaged[at % len(damaged)] ^= 1 << int(rng.integers(8))
            case 2:
                damaged[at : at + length] = rng.bytes(min(length, len(damaged) - at))
            case 3:
                del damaged[at:]
            case 4:
                del damaged[at : at + length]
            case 5:
                damaged[at:at] = damaged[at : at + length]
            case _:
                damaged[at:at] = rng.bytes(length)
    return bytes(damaged)


def random_bytes(rng: Rng) -> bytes:
    """A file that never was a model."""
    return rng.bytes(int(rng.integers(0, 5000)))


def damage_model(data: bytes, rng: Rng) -> bytes:
    """Change a few fields of a model, so that it still parses."""
    model = onnx.load_model_from_string(data)
    for _ in range(int(rng.choice([1, 1, 2, 3, 6]))):
        messages = list(_messages(model))
        message = messages[int(rng.integers(len(messages)))]
        if isinstance(message, onnx.NodeProto) and rng.random() < 0.3:
            _damage_node(message, rng)
        else:
            _damage_field(message, messages, rng)
    return bytes(model.SerializePartialToString(deterministic=True))


def _messages(root: Message) -> Iterator[Message]:
    yield root
    for field, value in root.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for child in value if isinstance(value, _REPEATED_MESSAGES) else [value]:
                yield from _messages(child)


_REPEATED_MESSAGES = type(onnx.GraphProto().node)


def _damage_field(message: Message, messages: list[Message], rng: Rng) -> None:
    fields = message.DESCRIPTOR.fields
    present = [field for field, _ in message.ListFields()]
    # What is there matters more often than what is not.
    pool = present if present and rng.random() < 0.8 else fields
    field = pool[int(rng.integers(len(pool)))]
    value = getattr(message, field.name)
    if isinstance(value, _REPEATED_MESSAGES):
        _damage_messages(value, field, messages, rng)
    elif hasattr(value, "extend"):
        _damage_list(value, field, messages, rng)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        _damage_message(message, field, messages, rng)
    elif rng.random() < 0.15:
        message.ClearField(field.name)
    else:
        _assign(lambda new: setattr(message, field.name, new), _scalar(value, field, messages, rng))


def _damage_messages(items: Any, field: FieldDescriptor, messages: list[Message], rng: Rng) -> None:
    """Remove, repeat, exchange or add an element of a repeated field of messages."""
    count = len(items)
    first, second = (int(rng.integers(max(count, 1))) for _ in range(2))
    action = rng.integers(5)
    if action == 0 and count:
        del items[first]
    elif action == 1 and count:
        items.add().CopyFrom(items[first])
    elif action == 2 and count:
        kept = type(items[first])()
        kept.CopyFrom(items[first])
        items[first].CopyFrom(items[second])
        items[second].CopyFrom(kept)
    elif action == 3 and count:
        del items[first:]
    else:
        _copy_another(items.add(), messages, rng)


def _damage_list(items: Any, field: FieldDescriptor, messages: list[Message], rng: Rng) -> None:
    """Change, remove or add an element of a repeated field of numbers or names."""
    at = int(rng.integers(max(len(items), 1)))
    action = rng.integers(6)
    before = items[at] if items else None
    if action == 0 and items:
        del items[at]
    elif action == 1 and items:
        del items[at:]
    elif action == 2:
        _assign(items.append, _scalar(before, field, messages, rng))
    elif action == 3 and items:
        items.extend(list(items))
    elif items:
        new = _scalar(before, field, messages, rng)
        _assign(lambda new: items.__setitem__(at, new), new)


def _damage_message(
    message: Message, field: FieldDescriptor, messages: list[Message], rng: Rng
) -> None:
    if rng.random() < 0.4:
        message.ClearField(field.name)
    else:
        _copy_another(getattr(message, field.name), messages, rng)


def _copy_another(target: Message, messages: list[Message], rng: Rng) -> None:
    """Make it equal to another message of its kind, except one that would hold itself."""
    same = [m for m in messages if m.DESCRIPTOR is target.DESCRIPTOR and m.ByteSize() < 100_000]
    if same:
        source = type(target)()
        source.CopyFrom(same[int(rng.integers(len(same)))])
        target.CopyFrom(source)
    else:
        target.SetInParent()


def _assign(put: Callable[[Any], None], value: Any) -> None:
    try:
        put(value)
    except (ValueError, TypeError):
        return  # protobuf does not take it: out of the field's range


def _scalar(before: Any, field: FieldDescriptor, messages: list[Message], rng: Rng) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return damage_bytes(before or b"", rng)
        return _text(field, messages, rng)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return FLOATS[int(rng.integers(len(FLOATS)))]
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        values = field.enum_type.values
        return values[int(rng.integers(len(values)))].number
    if before is not None and rng.random() < 0.3:
        return before + int(rng.choice([-1, 1]))
    return INTEGERS[int(rng.integers(len(INTEGERS)))]


def _text(field: FieldDescriptor, messages: list[Message], rng: Rng) -> Any:
    """A name that stands elsewhere in the model, an operator's, or an odd one."""
    choice = rng.random()
    if field.name == "op_type" or choice < 0.05:
        return OPERATORS[int(rng.integers(len(OPERATORS)))]
    if choice < 0.2:
        return TEXTS[int(rng.integers(len(TEXTS)))]
    nodes = [m for m in messages if isinstance(m, onnx.NodeProto)]
    names = [name for one in nodes for name in (*one.input, *one.output)]
    return names[int(rng.integers(len(names)))] if names else ""


_SCHEMAS = {
    schema.name: schema
    for schema in sorted(onnx.defs.get_all_schemas(), key=lambda schema: schema.name)
    if not schema.domain
}
OPERATORS = tuple(_SCHEMAS)


def _damage_node(node: onnx.NodeProto, rng: Rng) -> None:
    """Give the node an attribute that its operator has, with a value of the right type or not."""
    schema = _SCHEMAS.get(node.op_type)
    names = sorted(schema.attributes) if schema is not None else []
    if not names:
        node.op_type = OPERATORS[int(rng.integers(len(OPERATORS)))]
        return
    name = names[int(rng.integers(len(names)))]
    integers = [INTEGERS[int(i)] for i in rng.integers(len(INTEGERS), size=rng.integers(1, 5))]
    values = [
        integers,
        integers[0],
        [float(FLOATS[int(rng.integers(len(FLOATS)))])],
        float(FLOATS[int(rng.integers(len(FLOATS)))]),
        TEXTS[int(rng.integers(len(TEXTS)))],
    ]
    # 4 in 5 have the type that the schema asks for, where it is one of these.
    kinds = ["INTS", "INT", "FLOATS", "FLOAT", "STRING"]
    wanted = str(schema.attributes[name].type).rpartition(".")[2]
    index = kinds.index(wanted) if wanted in kinds and rng.random() < 0.8 else rng.integers(5)
    others = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(others)
    node.attribute.append(onnx.helper.make_attribute(name, values[int(index)]))
