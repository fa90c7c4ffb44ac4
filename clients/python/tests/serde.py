"""The form that values and messages have in `clients/vectors.json`."""

import dataclasses
import enum
import json
import pathlib
from typing import Any

from rustydb._wire import messages as m
from rustydb._wire.values import Kind, Value

VECTORS = json.loads(
    (pathlib.Path(__file__).parents[2] / "vectors.json").read_text(encoding="utf-8")
)

_VARIANTS = {
    Kind.NULL: "Null",
    Kind.BOOL: "Bool",
    Kind.INT2: "Int2",
    Kind.INT4: "Int4",
    Kind.INT8: "Int8",
    Kind.FLOAT4: "Float4",
    Kind.FLOAT8: "Float8",
    Kind.NUMERIC: "Numeric",
    Kind.TEXT: "Text",
    Kind.BYTEA: "Bytea",
    Kind.DATE: "Date",
    Kind.TIME: "Time",
    Kind.TIMETZ: "TimeTz",
    Kind.TIMESTAMP: "Timestamp",
    Kind.TIMESTAMPTZ: "TimestampTz",
    Kind.INTERVAL: "Interval",
    Kind.UUID: "Uuid",
    Kind.JSON: "Json",
    Kind.JSONB: "Jsonb",
    Kind.INET: "Inet",
    Kind.CIDR: "Cidr",
    Kind.MACADDR: "MacAddr",
    Kind.BIT: "Bit",
    Kind.OID: "Oid",
    Kind.MONEY: "Money",
    Kind.ARRAY: "Array",
    Kind.RANGE: "Range",
    Kind.MULTIRANGE: "Multirange",
    Kind.COMPOSITE: "Composite",
    Kind.OTHER: "Other",
}
_FIELDS = {
    Kind.TIMETZ: ("micros", "offset_secs"),
    Kind.INTERVAL: ("months", "days", "micros"),
    Kind.BIT: ("len", "bytes"),
    Kind.ARRAY: ("element_oid", "dims", "values"),
    Kind.RANGE: ("element_oid", "range"),
    Kind.MULTIRANGE: ("element_oid", "ranges"),
    Kind.COMPOSITE: ("type_oid", "fields"),
    Kind.OTHER: ("type_oid", "binary", "bytes"),
}
# Messages whose variant holds a value alone, not named fields.
_BARE = (m.SimpleTransactionId, m.SimpleError)
# Fields that are called otherwise here.
_RENAMED = {(m.StreamData, "data"): "bytes"}


def of_value(value: Value | None) -> Any:
    assert value is not None
    name = _VARIANTS[value.kind]
    if value.kind == Kind.NULL:
        return name
    if value.kind not in _FIELDS:
        return {name: _plain(value.data)}
    fields = dict(zip(_FIELDS[value.kind], value.data, strict=True))
    if "dims" in fields:
        fields["dims"] = [{"len": length, "lower": lower} for length, lower in fields["dims"]]
    if "range" in fields:
        fields["range"] = _of_range(fields["range"])
    if "ranges" in fields:
        fields["ranges"] = [_of_range(each) for each in fields["ranges"]]
    return {name: {field: _plain(item) for field, item in fields.items()}}


def _of_range(data: Any) -> Any:
    empty, lower, upper = data
    return {"empty": empty, "lower": _of_bound(*lower), "upper": _of_bound(*upper)}


def _of_bound(kind: int, value: Value | None) -> Any:
    return "Unbounded" if not kind else {["Inclusive", "Exclusive"][kind - 1]: of_value(value)}


def of_message(message: m.Message) -> Any:
    content = _fields(message)
    if isinstance(message, _BARE):
        (content,) = content.values()
    names = list(message.NAMES)
    form = {names[-1]: content} if content != {} else names[-1]
    return {names[0]: form} if len(names) == 2 else form


def _fields(item: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(item)]
    return {_RENAMED.get((type(item), name), name): _plain(getattr(item, name)) for name in names}


def _plain(item: Any) -> Any:
    if isinstance(item, Value):
        return of_value(item)
    if isinstance(item, enum.Enum):
        return item.name.rstrip("_")
    if isinstance(item, bytes):
        return list(item)
    if isinstance(item, (list, tuple)):
        return [_plain(each) for each in item]
    if dataclasses.is_dataclass(item):
        return _fields(item)
    return item
