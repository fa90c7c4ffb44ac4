// A name with its value.
package io.rustydb;

/** A session's setting or a subscription's parameter. */
record Setting(String name, String value) {
    static Setting read(WireReader in) {
        return new Setting(in.string(), in.string());
    }

    static void write(WireWriter out, Setting setting) {
        out.string(setting.name);
        out.string(setting.value);
    }
}
