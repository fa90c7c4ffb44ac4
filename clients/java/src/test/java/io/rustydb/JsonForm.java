// Messages and values in the form of the vectors: serde's externally tagged JSON.
package io.rustydb;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.RecordComponent;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** By reflection over records, so that a forgotten field shows. */
final class JsonForm {
    private static final Map<Class<?>, String> FAMILIES = Map.of(
            HandshakeMessage.class, "Handshake",
            AuthMessage.class, "Auth",
            AuthReply.class, "AuthReply",
            PreparedMessage.class, "PreparedStatement",
            BulkMessage.class, "BulkInsert",
            StreamingMessage.class, "Streaming",
            NotificationMessage.class, "Notification",
            SessionMessage.class, "Session",
            SimpleRequest.class, "Simple",
            SimpleResponse.class, "SimpleReply");
    private static final Map<Class<?>, String> NAMES = Map.of(
            Message.Event.class, "StreamEvent",
            NotificationMessage.NoticeEvent.class, "Notice");

    private JsonForm() {
    }

    static JsonElement of(Object object) {
        if (object == null) {
            return JsonNull.INSTANCE;
        } else if (object instanceof Number number) {
            return new JsonPrimitive(new BigDecimal(number.toString()));
        } else if (object instanceof Boolean flag) {
            return new JsonPrimitive(flag);
        } else if (object instanceof String text) {
            return new JsonPrimitive(text);
        } else if (object instanceof Enum<?> constant) {
            return new JsonPrimitive(camelCase(constant.name()));
        } else if (object instanceof UUID uuid) {
            return of(ByteBuffer.allocate(16).putLong(uuid.getMostSignificantBits())
                    .putLong(uuid.getLeastSignificantBits()).array());
        } else if (object instanceof byte[] bytes) {
            JsonArray array = new JsonArray();
            for (byte it : bytes) {
                array.add(new BigDecimal(it & 0xff));
            }
            return array;
        } else if (object instanceof List<?> list) {
            JsonArray array = new JsonArray();
            list.forEach(it -> array.add(of(it)));
            return array;
        } else if (object instanceof Setting setting) {
            return of(List.of(setting.name(), setting.value()));
        }
        return ofRecord((Record) object);
    }

    /** A whole message with its tags; a message inside another one is a plain struct. */
    static JsonElement ofMessage(Message message) {
        Class<?> type = message.getClass();
        JsonElement tagged = tag(NAMES.getOrDefault(type, type.getSimpleName()),
                content((Record) message, true));
        String family = FAMILIES.get(type.getEnclosingClass());
        return family == null ? tagged : tag(family, tagged);
    }

    private static JsonElement ofRecord(Record object) {
        boolean variant = object instanceof Value || object instanceof Value.Bound;
        JsonElement inner = content(object, variant);
        return variant ? tag(object.getClass().getSimpleName(), inner) : inner;
    }

    private static JsonElement content(Record object, boolean variant) {
        RecordComponent[] components = object.getClass().getRecordComponents();
        if (variant && components.length == 0) {
            return null;
        }
        if (variant && components.length == 1 && components[0].getName().equals("value")) {
            return of(get(object, components[0]));
        }
        JsonObject fields = new JsonObject();
        for (RecordComponent component : components) {
            JsonElement field = of(get(object, component));
            fields.add(snakeCase(component.getName()), field);
        }
        return fields;
    }

    private static JsonElement tag(String name, JsonElement inner) {
        if (inner == null) {
            return new JsonPrimitive(name);
        }
        JsonObject tagged = new JsonObject();
        tagged.add(name, inner);
        return tagged;
    }

    private static Object get(Record object, RecordComponent component) {
        try {
            return component.getAccessor().invoke(object);
        } catch (IllegalAccessException | InvocationTargetException e) {
            throw new AssertionError(e);
        }
    }

    private static String snakeCase(String name) {
        return name.replaceAll("([A-Z])", "_$1").toLowerCase(java.util.Locale.ROOT);
    }

    private static String camelCase(String constant) {
        StringBuilder name = new StringBuilder();
        for (String word : constant.split("_")) {
            name.append(word.charAt(0))
                    .append(word.substring(1).toLowerCase(java.util.Locale.ROOT));
        }
        return name.toString();
    }

    /** Equal, numbers compared by value; unsigned numbers may have come as negative ones. */
    static boolean same(JsonElement expected, JsonElement actual) {
        if (expected instanceof JsonObject object) {
            return actual instanceof JsonObject other && object.keySet().equals(other.keySet())
                    && object.keySet().stream()
                            .allMatch(key -> same(object.get(key), other.get(key)));
        } else if (expected instanceof JsonArray array) {
            if (!(actual instanceof JsonArray other) || array.size() != other.size()) {
                return false;
            }
            for (int i = 0; i < array.size(); i++) {
                if (!same(array.get(i), other.get(i))) {
                    return false;
                }
            }
            return true;
        } else if (expected instanceof JsonPrimitive one && one.isNumber()) {
            return actual instanceof JsonPrimitive other && other.isNumber()
                    && sameNumber(one.getAsBigDecimal(), other.getAsBigDecimal());
        }
        return expected.equals(actual);
    }

    private static boolean sameNumber(BigDecimal expected, BigDecimal actual) {
        BigDecimal unsigned = actual.signum() < 0
                ? actual.add(BigDecimal.valueOf(2).pow(64)) : actual;
        return expected.compareTo(actual) == 0 || expected.compareTo(unsigned) == 0;
    }
}
