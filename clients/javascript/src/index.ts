export { RustyDBError } from "./errors.js";
export { encodeMessage } from "./wire/message.js";
export { encodeFrame } from "./wire/frame.js";
