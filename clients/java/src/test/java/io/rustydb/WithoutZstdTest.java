// The library without its optional dependency.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;
import org.junit.jupiter.api.Test;

class WithoutZstdTest {
    @Test
    void zstdIsOfferedOnlyWhereItIs() throws Exception {
        assertEquals(true, Zstd.isAvailable());
        URL classes = Client.class.getProtectionDomain().getCodeSource().getLocation();
        ClassLoader platform = ClassLoader.getPlatformClassLoader();
        try (URLClassLoader loader = new URLClassLoader(new URL[] {classes}, platform)) {
            Method isAvailable =
                    loader.loadClass("io.rustydb.Zstd").getDeclaredMethod("isAvailable");
            isAvailable.setAccessible(true);
            assertEquals(false, isAvailable.invoke(null));
        }
    }
}
