// What the decompressors say when a body is not what it claims to be.

import { protocolViolation, type RustyDBError } from "../errors.js";

/** The body does not decompress to exactly the size that it states. */
export function decompressionFailed(algorithm: string): RustyDBError {
  const message = `a body compressed with ${algorithm} does not hold what it states`;
  return protocolViolation(message, "DECOMPRESSION_FAILED");
}
