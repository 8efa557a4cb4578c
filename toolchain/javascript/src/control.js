// The words that the threads of one instance share beside the graph's memory.

/** The run under way, counted from 1; */
export const RUN = 0;
/** how many times a helper has returned from one; */
export const RETURNED = 1;
/** whether one has failed. */
export const FAILED = 2;
export const CONTROL_BYTES = 12;

/** Instead of a run: the instance is closed. */
export const LEAVE = -1;
