// How values are read and written.
package io.rustydb;

import java.util.List;
import java.util.UUID;

/** The numbers are those of the wire. */
final class ValueWire {
    private static final int VARIANTS = 30;

    private ValueWire() {
    }

    static void write(WireWriter out, Value value) {
        if (!writeNumber(out, value) && !writeText(out, value) && !writeTime(out, value)) {
            writeCompound(out, value);
        }
    }

    private static boolean writeNumber(WireWriter out, Value value) {
        if (value instanceof Value.Null) {
            out.variant(0);
        } else if (value instanceof Value.Bool it) {
            out.variant(1);
            out.bool(it.value());
        } else if (value instanceof Value.Int2 it) {
            out.variant(2);
            out.i16(it.value());
        } else if (value instanceof Value.Int4 it) {
            out.variant(3);
            out.i32(it.value());
        } else if (value instanceof Value.Int8 it) {
            out.variant(4);
            out.i64(it.value());
        } else if (value instanceof Value.Float4 it) {
            out.variant(5);
            out.f32(it.value());
        } else if (value instanceof Value.Float8 it) {
            out.variant(6);
            out.f64(it.value());
        } else if (value instanceof Value.Oid it) {
            out.variant(23);
            out.u32(it.value());
        } else if (value instanceof Value.Money it) {
            out.variant(24);
            out.i64(it.value());
        } else {
            return false;
        }
        return true;
    }

    private static boolean writeText(WireWriter out, Value value) {
        if (value instanceof Value.Numeric it) {
            text(out, 7, it.value());
        } else if (value instanceof Value.Text it) {
            text(out, 8, it.value());
        } else if (value instanceof Value.Bytea it) {
            out.variant(9);
            out.bytes(it.value());
        } else if (value instanceof Value.Json it) {
            text(out, 17, it.value());
        } else if (value instanceof Value.Jsonb it) {
            text(out, 18, it.value());
        } else if (value instanceof Value.Inet it) {
            text(out, 19, it.value());
        } else if (value instanceof Value.Cidr it) {
            text(out, 20, it.value());
        } else {
            return false;
        }
        return true;
    }

    private static void text(WireWriter out, int variant, String text) {
        out.variant(variant);
        out.string(text);
    }

    private static boolean writeTime(WireWriter out, Value value) {
        if (value instanceof Value.Date it) {
            out.variant(10);
            out.i32(it.value());
        } else if (value instanceof Value.Time it) {
            out.variant(11);
            out.i64(it.value());
        } else if (value instanceof Value.TimeTz it) {
            out.variant(12);
            out.i64(it.micros());
            out.i32(it.offsetSecs());
        } else if (value instanceof Value.Timestamp it) {
            out.variant(13);
            out.i64(it.value());
        } else if (value instanceof Value.TimestampTz it) {
            out.variant(14);
            out.i64(it.value());
        } else if (value instanceof Value.Interval it) {
            out.variant(15);
            out.i32(it.months());
            out.i32(it.days());
            out.i64(it.micros());
        } else {
            return false;
        }
        return true;
    }

    private static void writeCompound(WireWriter out, Value value) {
        if (value instanceof Value.Uuid it) {
            out.variant(16);
            out.bigEndian(it.value().getMostSignificantBits());
            out.bigEndian(it.value().getLeastSignificantBits());
        } else if (value instanceof Value.MacAddr it) {
            out.variant(21);
            out.bytes(it.value());
        } else if (value instanceof Value.Bit it) {
            out.variant(22);
            out.u32(it.len());
            out.bytes(it.bytes());
        } else if (value instanceof Value.Array it) {
            out.variant(25);
            out.u32(it.elementOid());
            out.list(it.dims(), (to, dimension) -> {
                to.u32(dimension.len());
                to.i32(dimension.lower());
            });
            out.list(it.values(), ValueWire::write);
        } else if (value instanceof Value.Range it) {
            out.variant(26);
            out.u32(it.elementOid());
            writeRange(out, it.range());
        } else if (value instanceof Value.Multirange it) {
            out.variant(27);
            out.u32(it.elementOid());
            out.list(it.ranges(), ValueWire::writeRange);
        } else if (value instanceof Value.Composite it) {
            out.variant(28);
            out.u32(it.typeOid());
            out.list(it.fields(), ValueWire::write);
        } else {
            Value.Other it = (Value.Other) value;
            out.variant(29);
            out.u32(it.typeOid());
            out.bool(it.binary());
            out.bytes(it.bytes());
        }
    }

    private static void writeRange(WireWriter out, Value.RangeValue range) {
        out.bool(range.empty());
        writeBound(out, range.lower());
        writeBound(out, range.upper());
    }

    private static void writeBound(WireWriter out, Value.Bound bound) {
        if (bound instanceof Value.Inclusive it) {
            out.variant(1);
            write(out, it.value());
        } else if (bound instanceof Value.Exclusive it) {
            out.variant(2);
            write(out, it.value());
        } else {
            out.variant(0);
        }
    }

    static Value read(WireReader in) {
        return in.nested(ValueWire::readOne);
    }

    private static Value readOne(WireReader in) {
        return switch (in.variant(VARIANTS, "Value")) {
            case 0 -> Value.NULL;
            case 1 -> new Value.Bool(in.bool());
            case 2 -> new Value.Int2(in.i16());
            case 3 -> new Value.Int4(in.i32());
            case 4 -> new Value.Int8(in.i64());
            case 5 -> new Value.Float4(in.f32());
            case 6 -> new Value.Float8(in.f64());
            case 7 -> new Value.Numeric(in.string());
            case 8 -> new Value.Text(in.string());
            case 9 -> new Value.Bytea(in.bytes());
            case 10 -> new Value.Date(in.i32());
            case 11 -> new Value.Time(in.i64());
            case 12 -> new Value.TimeTz(in.i64(), in.i32());
            case 13 -> new Value.Timestamp(in.i64());
            case 14 -> new Value.TimestampTz(in.i64());
            case 15 -> new Value.Interval(in.i32(), in.i32(), in.i64());
            case 16 -> new Value.Uuid(new UUID(in.bigEndian(), in.bigEndian()));
            case 17 -> new Value.Json(in.string());
            case 18 -> new Value.Jsonb(in.string());
            case 19 -> new Value.Inet(in.string());
            case 20 -> new Value.Cidr(in.string());
            case 21 -> new Value.MacAddr(in.bytes());
            case 22 -> new Value.Bit(in.u32(), in.bytes());
            case 23 -> new Value.Oid(in.u32());
            case 24 -> new Value.Money(in.i64());
            case 25 -> new Value.Array(in.u32(), in.list(ValueWire::readDimension),
                    in.list(ValueWire::read));
            case 26 -> new Value.Range(in.u32(), readRange(in));
            case 27 -> new Value.Multirange(in.u32(), in.list(ValueWire::readRange));
            case 28 -> new Value.Composite(in.u32(), in.list(ValueWire::read));
            default -> new Value.Other(in.u32(), in.bool(), in.bytes());
        };
    }

    private static Value.Dimension readDimension(WireReader in) {
        return new Value.Dimension(in.u32(), in.i32());
    }

    private static Value.RangeValue readRange(WireReader in) {
        return new Value.RangeValue(in.bool(), readBound(in), readBound(in));
    }

    private static Value.Bound readBound(WireReader in) {
        return switch (in.variant(3, "Bound")) {
            case 0 -> new Value.Unbounded();
            case 1 -> new Value.Inclusive(read(in));
            default -> new Value.Exclusive(read(in));
        };
    }

    static void writeRow(WireWriter out, List<Value> row) {
        out.list(row, ValueWire::write);
    }

    static List<Value> readRow(WireReader in) {
        return in.list(ValueWire::read);
    }
}
