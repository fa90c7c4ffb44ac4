// Lets one thread cancel what another one waits for.
package io.rustydb;

import java.util.ArrayList;
import java.util.List;

/**
 * Cancels the requests it was given to, by {@link QueryOptions#cancelToken}. They fail with
 * SQLSTATE 57014, unless they end first. A token can be used once.
 */
public final class CancelToken {
    private final List<Runnable> actions = new ArrayList<>();
    private boolean cancelled;

    /** Cancels; does nothing the second time. */
    public void cancel() {
        List<Runnable> due;
        synchronized (this) {
            if (cancelled) {
                return;
            }
            cancelled = true;
            due = List.copyOf(actions);
        }
        due.forEach(Runnable::run);
    }

    /** Whether {@link #cancel} was called. */
    public synchronized boolean isCancelled() {
        return cancelled;
    }

    /** Runs the action at cancellation, at once if that has been. */
    void attach(Runnable action) {
        synchronized (this) {
            if (!cancelled) {
                actions.add(action);
                return;
            }
        }
        action.run();
    }

    synchronized void detach(Runnable action) {
        actions.remove(action);
    }
}
