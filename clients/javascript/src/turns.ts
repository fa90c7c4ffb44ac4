// Turns of the event loop for loops that may never have to wait.

import { setImmediate as nextTurn } from "node:timers/promises";

/** How long a loop may keep the event loop to itself, in milliseconds. */
const LONGEST_TURN_MS = 10;

/** Lets timers and sockets have their turn now and then. */
export class Turns {
  #since = performance.now();

  /** Gives the turn away if this one has been long. */
  async yield(): Promise<void> {
    if (performance.now() - this.#since < LONGEST_TURN_MS) return;
    await nextTurn();
    this.#since = performance.now();
  }
}
