// JavaScript's values to PostgreSQL's and back, without a server.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  dateFromText, dateToText, timeFromText, timestampFromText, timestampToText, timestampTzToDate,
  timestampTzToText, timeToText, timeTzFromText, timeTzToText,
} from "../src/datetime.js";
import { fromValue } from "../src/decode.js";
import { pg, toParameters, toValue, type Parameter, type Typed } from "../src/encode.js";
import {
  Composite, Interval, Money, Multirange, OtherValue, oid, Range,
} from "../src/types.js";
import { NULL, type Value } from "../src/wire/value.js";

const FORMAT = { int8: "bigint", json: "value", timestamptz: "date" } as const;

describe("dates and times", () => {
  const dates: [number, string][] = [
    [0, "2000-01-01"], [1, "2000-01-02"], [9497, "2026-01-01"], [-1, "1999-12-31"],
    [59, "2000-02-29"], [60, "2000-03-01"], [-10_957, "1970-01-01"], [-36_524, "1900-01-01"],
    [-730_119, "0001-01-01"], [-730_120, "0001-12-31 BC"], [-730_485, "0001-01-01 BC"],
    [-2_451_545, "4714-11-24 BC"], [2_145_031_948, "5874897-12-31"], [2_921_939, "9999-12-31"],
    [0x7fff_ffff, "infinity"], [-0x8000_0000, "-infinity"],
  ];
  for (const [days, text] of dates) {
    it(text, () => {
      assert.equal(dateToText(days), text);
      assert.equal(dateFromText(dateToText(days)), days);
    });
  }

  it("every day of 800 years comes back, and agrees with Date", () => {
    for (let days = -146_097; days < 146_097; days++) {
      const text = dateToText(days);
      assert.equal(dateFromText(text), days);
      if (days % 97 === 0) assert.equal(Date.parse(text), 946_684_800_000 + days * 86_400_000);
    }
  });

  it("refuses days that are not", () => {
    for (const text of ["2026-02-29", "2026-13-01", "0000-01-01", "x", "2026-1", ""]) {
      assert.throws(() => dateFromText(text), { sqlstate: "22P02" }, text);
    }
  });

  it("times of day", () => {
    const cases: [bigint, string][] = [
      [0n, "00:00:00"], [1_000_000n, "00:00:01"], [86_399_999_999n, "23:59:59.999999"],
      [86_400_000_000n, "24:00:00"], [500_000n, "00:00:00.5"],
    ];
    for (const [micros, text] of cases) {
      assert.equal(timeToText(micros), text);
      assert.equal(timeFromText(text), micros);
    }
    for (const text of ["24:00:01", "12:60", "1", "12:00:00.1234567"]) {
      assert.throws(() => timeFromText(text), { sqlstate: "22P02" }, text);
    }
  });

  it("times of day with an offset", () => {
    const cases: [number, string][] = [
      [7200, "01:00:00+02"], [-12_600, "01:00:00-03:30"], [0, "01:00:00+00"],
      [-3661, "01:00:00-01:01:01"],
    ];
    for (const [offsetSecs, text] of cases) {
      assert.equal(timeTzToText({ micros: 3_600_000_000n, offsetSecs }), text);
      assert.deepEqual(timeTzFromText(text), { micros: 3_600_000_000n, offsetSecs });
    }
  });

  it("timestamps", () => {
    const cases: [bigint, string][] = [
      [0n, "2000-01-01 00:00:00"], [1n, "2000-01-01 00:00:00.000001"],
      [-1n, "1999-12-31 23:59:59.999999"], [820_540_800_000_000n, "2026-01-01 00:00:00"],
      [(1n << 63n) - 1n, "infinity"], [-(1n << 63n), "-infinity"],
      [-63_082_281_600_000_000n - 1n, "0001-12-31 23:59:59.999999 BC"],
    ];
    for (const [micros, text] of cases) {
      assert.equal(timestampToText(micros), text);
      assert.equal(timestampFromText(text), micros);
    }
    assert.equal(timestampFromText("2000-01-01T00:00:01"), 1_000_000n);
  });

  it("timestamps with time zone", () => {
    assert.deepEqual(timestampTzToDate(1_500n), new Date("2000-01-01T00:00:00.001Z"));
    assert.deepEqual(timestampTzToDate(-1n), new Date("1999-12-31T23:59:59.999Z"));
    assert.equal(timestampTzToDate((1n << 63n) - 1n), "infinity");
    assert.equal(timestampTzToDate(9_200_000_000_000_000_000n), "293536-05-24 11:33:20+00");
    assert.equal(timestampTzToText(-1n), "1999-12-31 23:59:59.999999+00");
    const same = [
      "2026-01-01 02:00:00+02", "2026-01-01T00:00:00Z", "2025-12-31 20:30:00-03:30",
      new Date("2026-01-01T00:00:00Z"),
    ];
    for (const value of same) {
      assert.equal(pg.timestamptz(value).value.value, 820_540_800_000_000n, String(value));
    }
    assert.throws(() => pg.timestamptz("2026-01-01 00:00:00"), { sqlstate: "22P02" });
    assert.throws(() => toValue(new Date(NaN)), { sqlstate: "22003" });
  });
});

describe("parameters", () => {
  const cases: [string, Parameter, Value][] = [
    ["null", null, NULL],
    ["undefined", undefined, NULL],
    ["true", true, { kind: "Bool", value: true }],
    ["1", 1, { kind: "Int4", value: 1 }],
    ["2^31", 2 ** 31, { kind: "Int8", value: 2n ** 31n }],
    ["1.5", 1.5, { kind: "Float8", value: 1.5 }],
    ["-0", -0, { kind: "Float8", value: -0 }],
    ["2^60", 2 ** 60, { kind: "Float8", value: 2 ** 60 }],
    ["1n", 1n, { kind: "Int8", value: 1n }],
    ["2n^64", 2n ** 64n, { kind: "Numeric", value: "18446744073709551616" }],
    ["text", "a", { kind: "Text", value: "a" }],
    ["object", { a: [1] }, { kind: "Jsonb", value: '{"a":[1]}' }],
    ["interval", new Interval({ months: 1, days: 2, seconds: 3 }), {
      kind: "Interval", value: { months: 1, days: 2, micros: 3_000_000n },
    }],
    ["array", [1, null], {
      kind: "Array",
      value: { elementOid: 23, dims: [{ len: 2, lower: 1 }], values: [toValue(1), NULL] },
    }],
    ["empty array", [], { kind: "Array", value: { elementOid: 0, dims: [], values: [] } }],
    ["empty arrays", [[], []], { kind: "Array", value: { elementOid: 0, dims: [], values: [] } }],
    ["matrix", [[1, 2, 3], [4, 5, 6]], {
      kind: "Array",
      value: {
        elementOid: 23,
        dims: [{ len: 2, lower: 1 }, { len: 3, lower: 1 }],
        values: [1, 2, 3, 4, 5, 6].map((n) => toValue(n)),
      },
    }],
    ["numbers of two kinds", [1, 1.5], {
      kind: "Array",
      value: {
        elementOid: 701,
        dims: [{ len: 2, lower: 1 }],
        values: [{ kind: "Float8", value: 1 }, { kind: "Float8", value: 1.5 }],
      },
    }],
    ["texts", ["a"], {
      kind: "Array",
      value: { elementOid: 0, dims: [{ len: 1, lower: 1 }], values: [toValue("a")] },
    }],
    ["range", Range.from(1, 5), {
      kind: "Range",
      value: {
        elementOid: 23,
        range: {
          empty: false,
          lower: { kind: "Inclusive", value: toValue(1) },
          upper: { kind: "Exclusive", value: toValue(5) },
        },
      },
    }],
  ];
  for (const [name, param, value] of cases) {
    it(name, () => assert.deepEqual(toValue(param), value));
  }

  it("of one type come back as they were", () => {
    const back: [Typed | Parameter, unknown][] = [
      [pg.int2(-5), -5], [pg.int4(5n), 5], [pg.int8(5), 5n], [pg.float4(1.5), 1.5],
      [pg.numeric("12.50"), "12.50"], [pg.numeric(1e21), "1e+21"], [pg.text("é"), "é"],
      [pg.date("2026-01-01"), "2026-01-01"], [pg.time("01:02:03"), "01:02:03"],
      [pg.timetz("01:00+02"), "01:00:00+02"], [pg.bool(null), null],
      [pg.timestamp("2026-01-01 00:00:00"), "2026-01-01 00:00:00"],
      [pg.uuid("123E4567-e89b-12d3-a456-426614174000"), "123e4567-e89b-12d3-a456-426614174000"],
      [pg.json({ a: 1 }), { a: 1 }], [pg.jsonb([1]), [1]], [pg.inet("10.0.0.1/8"), "10.0.0.1/8"],
      [pg.macaddr("08:00:2b:01:02:03"), "08:00:2b:01:02:03"], [pg.bit("101"), "101"],
      [pg.varbit("101010101"), "101010101"], [pg.oid(25), 25], [pg.money(100n), new Money(100n)],
      [pg.array(pg.int2, [[1, 2], [3, null]]), [[1, 2], [3, null]]],
      [new Composite([1, "a"], 16_400), new Composite([1, "a"], 16_400)],
      [new OtherValue(oid.point, Buffer.from("(1,2)")), new OtherValue(600, Buffer.from("(1,2)"))],
      [Range.empty(), new Range(null, null, true)],
    ];
    for (const [param, expected] of back) {
      assert.deepEqual(fromValue(toValue(param as Parameter), FORMAT), expected);
    }
    const ranges = fromValue(toValue(new Multirange([Range.from(1n, null, "(]")])), FORMAT);
    const upward = new Range({ value: 1n, inclusive: false }, null, false, oid.int8);
    assert.deepEqual(ranges, new Multirange([upward], oid.int8));
  });

  it("say their types where they are known", () => {
    assert.deepEqual(toParameters([1, pg.int8(1), "a"]).paramTypes, [0, 20]);
    assert.deepEqual(toParameters([1, "a"]).paramTypes, []);
    assert.equal(pg.array(pg.int2, []).value.kind, "Array");
  });

  it("refuse what cannot be", () => {
    const cyclic: Parameter[] = [];
    cyclic.push(cyclic);
    const cases: [() => unknown, string][] = [
      [() => toValue(cyclic), "22023"],
      [() => toValue([[1], [1, 2]]), "22023"],
      [() => toValue([1, [1]]), "22023"],
      [() => toValue([1, true]), "22023"],
      [() => toValue(Symbol("a") as never), "22023"],
      [() => pg.int2(40_000), "22003"],
      [() => pg.int4(1.5), "22003"],
      [() => pg.int8(1n << 63n), "22003"],
      [() => pg.numeric("1,5"), "22P02"],
      [() => pg.uuid("1"), "22P02"],
      [() => pg.macaddr("08:00"), "22P02"],
      [() => pg.bit("102"), "22P02"],
      [() => Range.from(1, 2, "]["), "22023"],
    ];
    for (const [make, sqlstate] of cases) assert.throws(make, { sqlstate }, make.toString());
  });
});

describe("results", () => {
  it("a float4 has the digits that it needs", () => {
    for (const value of [1.1, 0.1, 3.4028235e38, 1e-45, 16_777_216, 0.333333343, -2.5, Infinity]) {
      const stored = Math.fround(value);
      const shown = fromValue({ kind: "Float4", value: stored }, FORMAT) as number;
      assert.equal(Math.fround(shown), stored);
    }
    assert.equal(fromValue({ kind: "Float4", value: Math.fround(1.1) }, FORMAT), 1.1);
  });

  it("have the forms that were asked for", () => {
    const text = { int8: "string", json: "text", timestamptz: "text" } as const;
    assert.equal(fromValue({ kind: "Int8", value: 5n }, text), "5");
    assert.equal(fromValue({ kind: "Jsonb", value: "[1]" }, text), "[1]");
    const instant = fromValue({ kind: "TimestampTz", value: 1n }, text);
    assert.equal(instant, "2000-01-01 00:00:00.000001+00");
  });

  it("intervals are ISO 8601", () => {
    const cases: [Interval, string][] = [
      [new Interval({ years: 1, months: 1, days: 2, seconds: 3.5 }), "P13M2DT3.5S"],
      [new Interval({}), "PT0S"],
      [new Interval({ micros: -1n }), "PT-0.000001S"],
      [new Interval({ hours: 1, minutes: 30 }), "PT5400S"],
      [new Interval({ months: 0x7fff_ffff, days: 0x7fff_ffff }), "infinity"],
    ];
    for (const [interval, expected] of cases) assert.equal(String(interval), expected);
  });
});
