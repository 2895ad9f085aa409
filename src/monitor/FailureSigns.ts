import { kvaOffset, kvaPage } from "../core/Address.ts"
import type { Reason } from "../core/Reason.ts"
import type { LogLine } from "../host/KernelLog.ts"
import { parseScxExits } from "../host/ScxExit.ts"
import type { GuestKernelService } from "../memory/GuestKernel.ts"
import { schedLayouts } from "../sched/SchedLayouts.ts"
import { readTime } from "../sched/SchedTime.ts"
import { exitKindOf, readScxBase, schedulerAddresses, type SchedulerBase } from "../sched/scx/ScxState.ts"
import { TaskReader } from "../sched/tasks/Tasks.ts"
import type { Failure } from "./Failure.ts"
import { readKernelRing } from "./KernelRing.ts"
import { oldestRunnable } from "./ReadSampled.ts"
import type { Sample } from "./Sample.ts"
import { Sampler } from "./Sampler.ts"

/** A failure without the time and the place where it was noticed. */
export type Sign = Pick<Failure, "kind" | "text">

/**
 * Words that the kernel logs when it is broken.
 * @see kernel/panic.c, lib/bug.c, arch/x86/kernel/dumpstack.c, arch/x86/mm/fault.c, kernel/watchdog.c; v6.1 to v7.3
 */
const WORDS: ReadonlyArray<readonly [Failure["kind"], RegExp]> = [
  ["panic", /Kernel panic - not syncing/],
  ["soft-lockup", /watchdog: BUG: soft lockup/],
  ["oops", /BUG: |Oops: |kernel BUG at |general protection fault|invalid opcode: |divide error: /]
]

/** The sign of a failure that a line of the kernel's is, without its time. */
const signOfText = (text: string): Sign | undefined => {
  const kind = WORDS.find(([, words]) => text.search(words) === 0)?.[0]
  return kind === undefined ? undefined : { kind, text }
}

const STAMP = "^\\[ *\\d+\\.\\d{6}\\](?:\\[ *[TC]\\d+\\])? "

/** A console's line that is a sign of failure: its time tells a kernel's line from a script's. */
export const CONSOLE_SIGN = new RegExp(`${STAMP}(?:${WORDS.map(([, words]) => words.source).join("|")})`)

/** The sign that a line of `CONSOLE_SIGN` is. */
export const signOfConsole = (line: string): Sign =>
  signOfText(line.replace(new RegExp(STAMP), "")) ?? { kind: "oops", text: line }

/** The first sign among lines of a log: a scheduler that was ended for an error is one, too. */
const signOfLog = (lines: ReadonlyArray<LogLine>): Sign | undefined => {
  for (const { text } of lines) {
    const sign = signOfText(text)
    if (sign !== undefined) return sign
  }
  const exit = parseScxExits(lines).find(({ kind }) => kind !== "normal")
  return exit === undefined ? undefined : {
    kind: "scheduler",
    text: `${exit.scheduler}: ${exit.reason}${exit.message === null ? "" : `: ${exit.message}`}`
  }
}

/** A scheduler's kind of exit if it is an error: `SCX_EXIT_ERROR` and those behind it. */
const errorOf = (scheduler: SchedulerBase): string | undefined => {
  const kind = exitKindOf(scheduler)
  return kind.startsWith("ERROR") ? kind : undefined
}

/** `SCX_EXIT_UNREG`, the first kind that ends a scheduler. Before v6.16 the variable is `SCX_EXIT_DONE` where none is loaded. */
const SCX_EXIT_UNREG = 64

/** Does any scheduler end? A look at one number each: `readScxBase` reads all of each. */
const isEnding = (kernel: GuestKernelService): boolean => {
  const { btf, space, symbols } = kernel
  const variable = symbols.address("scx_exit_kind")
  if (variable !== undefined) return space.u32(variable) >= SCX_EXIT_UNREG
  const { sched } = schedLayouts(btf)
  return sched !== undefined &&
    schedulerAddresses(kernel, []).some((address) =>
      space.window(kvaPage(address), kvaOffset(address), sched.size)
      && Number(sched.read(space.view, space.at).exit_kind ?? 0) !== 0
    )
}

/**
 * Looks for signs of failure in the memory of a kernel that runs, again and again: a scheduler's kind of exit, and what
 * came to the kernel's log since the last look.
 */
export class FailureSigns {
  readonly #kernel: GuestKernelService
  readonly #sampler: Sampler
  #log: bigint | undefined
  #old: number | undefined
  #told: number | undefined

  /** @param threads as a `Sampler` takes them */
  constructor(kernel: GuestKernelService, threads: ReadonlyArray<number> = []) {
    this.#kernel = kernel
    this.#sampler = new Sampler(kernel, threads)
  }

  /** The gravest sign that is there now. */
  look(): Sign | undefined {
    const kernel = this.#kernel
    kernel.space.flush()
    const scx = isEnding(kernel) ? readScxBase(kernel, readTime(kernel)) : undefined
    const ended = scx === undefined || "kind" in scx
      ? undefined
      : scx.schedulers.find((scheduler) => errorOf(scheduler) !== undefined)
    const { lines, next } = readKernelRing(kernel, this.#log)
    this.#log = next
    return ended === undefined ? signOfLog(lines) : {
      kind: "scheduler",
      text: [ended.name, errorOf(ended), ended.exitInfo?.message].filter((part) => part !== undefined && part !== "")
        .join(": ")
    }
  }

  /** A sample, or why there is none. */
  sample(): Sample | Reason {
    return this.#sampler.next()
  }

  /** Whether the last look at ages had an old task of which the next look will tell. */
  get hasSuspect(): boolean {
    return this.#old !== undefined && this.#old !== this.#told
  }

  /**
   * A task that has been runnable for more than half of the time after which the kernel ends its scheduler, in words: once
   * of each that comes to be the oldest of all, and when two looks in turn have it: one alone may be torn, and the CPU of a
   * guest that had to wait for the host goes on with its tasks at once.
   */
  lookAtAges(): string | undefined {
    const reader = TaskReader.of(this.#kernel)
    const old = reader === undefined ? undefined : oldTask(this.#kernel, reader)
    const isNews = old !== undefined && old.pid === this.#old && old.pid !== this.#told
    this.#old = old?.pid
    if (old === undefined || isNews) this.#told = old?.pid
    return isNews ? `${old.comm}[${old.pid}] has been runnable for ${old.millis} of ${old.watchdog} ms` : undefined
  }
}

/** The task that has been runnable for longest, where that is more than half of the watchdog's time. */
const oldTask = (kernel: GuestKernelService, reader: TaskReader) => {
  kernel.space.flush()
  const time = readTime(kernel)
  const scx = readScxBase(kernel, time)
  const watchdog = "kind" in scx ? undefined : scx.schedulers.find(({ root }) => root)?.watchdogMillis
  const oldest = watchdog === undefined ? null : oldestRunnable(kernel, reader, time).task
  return oldest !== null && watchdog !== undefined && oldest.millis > watchdog / 2 ? { ...oldest, watchdog } : undefined
}
