/**
 * Longest times that a guest may take for work of its own, in nanoseconds by its clock. What a scenario says, and what the
 * kernel does after a time, is no such work.
 *
 * @since 0.1.0
 * @category models
 */
export interface GuestLimits {
  /** A scheduler attaches in it, where the test does not say; schedulers take 0.1 to 5.2 s by the clock of 2 ns. */
  readonly attach: number
  /** A scheduler that is asked to ends in it. */
  readonly detach: number
  /** A payload that is asked to ends in it. */
  readonly kill: number
  /** Workers begin or end in it: a scheduler may starve them. */
  readonly workers: number
  /** A system call of the agent's that takes longer is taken for one that never returns. */
  readonly call: number
  /** The agent has had a CPU in it: longer than `call`, after which it ends the guest itself. */
  readonly starved: number
}

/** The limits by a clock of 2 ns an instruction, and by the host's. */
const LIMITS: GuestLimits = { attach: 10e9, detach: 10e9, kill: 1e9, workers: 5e9, call: 20e9, starved: 25e9 }
const SHIFT = 1

/** The limits by an exact guest's clock, which gives the same instructions more time the slower they are; null: the host's. */
export const guestLimits = (clock: { readonly shift: number } | null): GuestLimits => {
  const slower = clock === null ? 1 : 2 ** (clock.shift - SHIFT)
  return {
    attach: LIMITS.attach * slower,
    detach: LIMITS.detach * slower,
    kill: LIMITS.kill * slower,
    workers: LIMITS.workers * slower,
    call: LIMITS.call * slower,
    starved: LIMITS.starved * slower
  }
}
