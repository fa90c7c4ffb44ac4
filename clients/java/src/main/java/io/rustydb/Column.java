// What is known about a result's column.
package io.rustydb;

/**
 * A column of a result.
 *
 * @param name its name, not necessarily unique
 * @param typeOid the OID of its type
 * @param typeName the name of its type, as PostgreSQL's catalog has it
 * @param typeModifier the type's modifier, −1 for none
 * @param typeSize the size of the type in bytes, negative if it varies
 * @param tableOid the table it comes from, or 0
 * @param columnNumber its number in that table, or 0
 * @param nullable whether it can be null; null if that is not known
 */
public record Column(String name, long typeOid, String typeName, int typeModifier, short typeSize,
        long tableOid, short columnNumber, Boolean nullable) {
    static Column read(WireReader in) {
        return new Column(in.string(), in.u32(), in.string(), in.i32(), in.i16(), in.u32(),
                in.i16(), in.option(WireReader::bool));
    }

    void write(WireWriter out) {
        out.string(name);
        out.u32(typeOid);
        out.string(typeName);
        out.i32(typeModifier);
        out.i16(typeSize);
        out.u32(tableOid);
        out.i16(columnNumber);
        out.option(nullable, WireWriter::bool);
    }
}
