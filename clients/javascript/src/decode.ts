// Values of results as JavaScript's own.

import {
  dateToText, timestampToText, timestampTzToDate, timestampTzToText, timeToText, timeTzToText,
} from "./datetime.js";
import { protocolViolation } from "./errors.js";
import type { ValueFormat } from "./options.js";
import {
  bitToText, Composite, Interval, macaddrToText, Money, Multirange, OtherValue, Range, uuidToText,
  type RangeEnd,
} from "./types.js";
import type { Bound, Dimension, RangeValue, Value } from "./wire/value.js";

/** One value of a result in the form that the options ask for. */
export function fromValue({ kind, value }: Value, format: ValueFormat): unknown {
  switch (kind) {
    case "Null": return null;
    case "Float4": return shortestFloat4(value);
    case "Int8": return format.int8 === "bigint" ? value : String(value);
    case "Bytea": return value;
    case "Date": return dateToText(value);
    case "Time": return timeToText(value);
    case "TimeTz": return timeTzToText(value);
    case "Timestamp": return timestampToText(value);
    case "TimestampTz":
      return format.timestamptz === "date" ? timestampTzToDate(value) : timestampTzToText(value);
    case "Interval": return new Interval(value);
    case "Uuid": return uuidToText(value);
    case "Json":
    case "Jsonb": return format.json === "value" ? JSON.parse(value) : value;
    case "MacAddr": return macaddrToText(value);
    case "Bit": return bitToText(value);
    case "Money": return new Money(value);
    case "Array": return arrayFrom(value.dims, value.values, format);
    case "Range": return rangeFrom(value.range, value.elementOid, format);
    case "Multirange": {
      const ranges = value.ranges.map((range) => rangeFrom(range, value.elementOid, format));
      return new Multirange(ranges, value.elementOid);
    }
    case "Composite": {
      const fields = value.fields.map((field) => fromValue(field, format));
      return new Composite(fields, value.typeOid);
    }
    case "Other": return new OtherValue(value.typeOid, value.bytes, value.binary);
    // Numbers that are exact as a number, and types whose form is their text.
    default: return value;
  }
}

/** The number with the fewest digits that is this float4: 1.1, not 1.100000023841858. */
function shortestFloat4(value: number): number {
  if (Number.isInteger(value) || !Number.isFinite(value)) return value;
  for (let digits = 6; digits < 9; digits++) {
    const shorter = Number(value.toPrecision(digits));
    if (Math.fround(shorter) === value) return shorter;
  }
  return value;
}

/** An array for each dimension. Subscripts count from 0, whatever PostgreSQL's lower bound. */
function arrayFrom(dims: Dimension[], values: Value[], format: ValueFormat): unknown[] {
  const expected = dims.reduce((product, { len }) => product * len, dims.length === 0 ? 0 : 1);
  if (expected !== values.length) {
    throw protocolViolation(`an array of ${expected} elements has ${values.length}`);
  }
  let level: unknown[] = values.map((value) => fromValue(value, format));
  for (const { len } of dims.slice(1).reverse()) {
    const rows: unknown[][] = [];
    for (let at = 0; at < level.length; at += len) rows.push(level.slice(at, at + len));
    level = rows;
  }
  return level;
}

function rangeFrom(range: RangeValue, elementOid: number, format: ValueFormat): Range {
  const end = ({ kind, value }: Bound): RangeEnd | null =>
    kind === "Unbounded"
      ? null
      : { value: fromValue(value, format), inclusive: kind === "Inclusive" };
  return new Range(end(range.lower), end(range.upper), range.empty, elementOid);
}
