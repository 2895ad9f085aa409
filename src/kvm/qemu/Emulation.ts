/**
 * How QEMU emulates several CPUs: `turns` on one thread, `threads` of their own, or `exact` turns.
 *
 * @since 0.1.0
 * @category models
 */
export type Emulation = "turns" | "threads" | ExactEmulation

/**
 * A guest whose every bit is the same in each run with the same seed, whatever the host does: its clock counts the
 * instructions that its CPUs execute. Needs QEMU 8.1 or newer for more than one CPU: before, a CPU could be left without
 * any turn. Input while it runs would make runs differ.
 *
 * @since 0.1.0
 * @category models
 */
export interface ExactEmulation {
  /** A whole number from 0 to 2^53 - 1; another seed gives another schedule. */
  readonly seed: number
  /** An instruction takes 2^shift nanoseconds of guest time. */
  readonly shift: number
  /** Longest round of turns of several CPUs in microseconds of guest time. 0 leaves turns to the next timer, as before 8.1. */
  readonly sliceMicros: number
}

/**
 * A QEMU to run: its binary, and the directories of its firmware where it is not installed in its own place.
 *
 * @since 0.1.0
 * @category models
 */
export interface QemuProgram {
  readonly path: string
  readonly firmware: ReadonlyArray<string>
}

/**
 * With a thread each, one guest in a hundred panicked in its boot: a CPU ran the `int3` of a code patch that another had
 * finished already (seen with QEMU 7.2 and Linux 6.12: "Oops: int3" in a function just patched). Booting takes the same
 * time either way; a wake-up across busy CPUs takes a hundred times as long by turns.
 */
const TURNS = "tcg,thread=single"
const THREADS = "tcg,thread=multi"
/** The emulated real-time clock starts here, and runs by the guest's clock. */
const START = "2026-01-01T00:00:00"

/** QEMU's parameters of an emulation of `cpus` CPUs. */
export const emulationParameters = (emulation: Emulation, cpus: number): ReadonlyArray<string> => {
  if (emulation === "turns") return ["-accel", TURNS]
  if (emulation === "threads") return ["-accel", THREADS]
  const { seed, shift, sliceMicros } = emulation
  const slicer = sliceMicros === 0 || cpus === 1 ? [] : slicerParameters(sliceMicros)
  const clock = ["-icount", `shift=${shift},sleep=off`, "-rtc", `base=${START},clock=vm`]
  return ["-accel", TURNS, "-seed", String(seed), ...clock, ...slicer]
}

/**
 * A CPU's turn ends at the next timer of QEMU's, and an interrupt from another CPU does not end it. The packet filter of a
 * network port that nobody uses has a timer of the guest's clock: it bounds the turn. QEMU warns that the port has no peer.
 * Each time it ends, two more threads of QEMU wake up: a sixth of the CPU time of a run on two CPUs.
 * SCHED_BATCH for them saves a seventh, but then 4 of 68 runs of Debian's 7.3 differed in an idle phase, by up to 160 ns (none
 * of 56 without it). It fits a race in QEMU: a CPU counts as idle from its HLT on, its last instructions are counted a moment
 * later, and if the main thread advances the clock to the next timer in between, it goes too far by these.
 * @see QEMU net/filter-buffer.c `filter_buffer_release_timer`, accel/tcg/tcg-accel-ops-rr.c, and accel/tcg/icount-common.c
 * `icount_start_warp_timer`, 10.0
 */
const slicerParameters = (micros: number): ReadonlyArray<string> => [
  "-netdev",
  "hubport,id=slice,hubid=0",
  "-object",
  `filter-buffer,id=slicer,netdev=slice,interval=${micros}`
]

/** Whether a line is QEMU's warning about the slicer's port, which is harmless. */
export const isSlicersWarning = (line: string): boolean => /warning: (?:hub port|netdev) slice has no peer/.test(line)
