// The columns of a result, shared by its rows.
package io.rustydb;

import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Finds columns by name: as it is written, or else in any case. The first of several wins. */
final class Header {
    private final List<Column> columns;
    private final Map<String, Integer> exact = new HashMap<>();
    private final Map<String, Integer> folded = new HashMap<>();

    Header(List<Column> columns) {
        this.columns = List.copyOf(columns);
        for (int i = 0; i < columns.size(); i++) {
            exact.putIfAbsent(columns.get(i).name(), i);
            folded.putIfAbsent(columns.get(i).name().toLowerCase(Locale.ROOT), i);
        }
    }

    List<Column> columns() {
        return columns;
    }

    /** The place from 0 of a column. */
    int find(String name) {
        Integer place = exact.get(name);
        if (place == null) {
            place = folded.get(name.toLowerCase(Locale.ROOT));
        }
        if (place == null) {
            throw RustyDBException.local(
                    "42703", "NOT_FOUND", "the result has no column " + name);
        }
        return place;
    }
}
