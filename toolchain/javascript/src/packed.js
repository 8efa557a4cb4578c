// Errors as they travel between threads and processes.

import { makeError } from "./errors.js";

export const pack = ({ kind, message, hint = null }) => ({ kind, message, hint });

/** The error that was packed. */
export const unpack = ({ kind, message, hint }) => makeError(kind, message, hint);
