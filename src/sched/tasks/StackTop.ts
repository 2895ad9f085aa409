/**
 * Where a task that does not run sleeps: the innermost function on its kernel stack that is not of the scheduler itself.
 * @see kernel/sched/core.c `get_wchan`, v6.12
 */
export interface StackTop {
  /** The pointer that it starts from: the stack pointer that the task saved, or its frame pointer. */
  readonly saved: "sp" | "fp"
  /** By that pointer, and the lowest address of the task's stack: where in `words` the two are. */
  readonly of: (words: Uint32Array, saved: number, stack: number) => string | undefined
}
