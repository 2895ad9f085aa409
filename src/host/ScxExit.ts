import * as Schema from "effect/Schema"
import type { LogLine } from "./KernelLog.ts"

/**
 * A place in the kernel's code, as the kernel prints it: `scx_watchdog_workfn+0x152/0x1a0`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const StackSymbol = Schema.Struct({
  name: Schema.String,
  offset: Schema.Int.annotations({ description: "bytes from the function's start" }),
  size: Schema.NullOr(Schema.Int).annotations({ description: "bytes of the function" })
}).annotations({ identifier: "StackSymbol" })
/**
 * The type that the Schema `StackSymbol` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type StackSymbol = typeof StackSymbol.Type

/**
 * A sched_ext scheduler's end, from the kernel's log.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ScxExitEvent = Schema.Struct({
  atMicros: Schema.NullOr(Schema.Int).annotations({ description: "microseconds since boot; null: the log says none" }),
  scheduler: Schema.String.annotations({ description: "sched_ext_ops.name" }),
  kind: Schema.Literal("normal", "error", "stall", "other").annotations({
    description:
      "normal: it was unregistered; error: it, or the kernel for it, called it off; stall: the watchdog did; "
      + "other: a reason that is not known here"
  }),
  reason: Schema.String.annotations({ description: "the kernel's words for the kind" }),
  message: Schema.NullOr(Schema.String).annotations({ description: "what went wrong; null: nothing was said" }),
  stalled: Schema.NullOr(
    Schema.Struct({ comm: Schema.String, pid: Schema.Int, millis: Schema.Int })
  ).annotations({ description: "the task that did not run, and for how long" }),
  stack: Schema.Array(StackSymbol).annotations({ description: "where it was called off, from the innermost on" }),
  stackIsWatchdogs: Schema.Boolean.annotations({ description: "the stack is the watchdog's, not the scheduler's" })
}).annotations({ identifier: "ScxExitEvent" })
/**
 * The type that the Schema `ScxExitEvent` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type ScxExitEvent = typeof ScxExitEvent.Type

/** kernel/sched/ext.c `scx_exit_reason`, v6.12 to v7.3 */
const NORMAL = new Set([
  "unregistered from user space",
  "unregistered from BPF",
  "unregistered from the main kernel",
  "disabled by sysrq-S",
  "parent exiting",
  "killed by parent scheduler"
])
const ERRORS = new Set(["runtime error", "scx_bpf_error", "reenqueue limit", "rescue bandwidth overload"])
const STALL = "runnable task stall"
/** The watchdog's own functions: their stack says nothing about the scheduler. */
const WATCHDOG = new Set(["scx_watchdog_workfn", "check_rq_for_timeouts", "scx_tick"])

/** `sched_ext: BPF scheduler "NAME" disabled (REASON)`; `sub-scheduler` since v7.1 */
const DISABLED = [/^sched_ext: BPF (?:sub-)?scheduler "/, "\" disabled (", ")"] as const
const FRAME = /^\s*(?:\? )?([A-Za-z_][\w.$]*)\+0x([0-9a-f]{1,13})(?:\/0x([0-9a-f]{1,13}))?(?:\s+\[.*\])?$/
const STALLED = /^(.*)\[(\d{1,10})\] failed to run for (\d{1,10})\.(\d{3})s$/

/**
 * The frames in lines of a stack trace; other lines are passed over.
 *
 * @since 0.1.0
 * @category reading
 */
export const extractStackSymbols = (lines: Iterable<string>): ReadonlyArray<StackSymbol> =>
  Array.from(lines).flatMap((line) => {
    const [, name, offset, size] = FRAME.exec(line) ?? []
    return name === undefined
      ? []
      : [{ name, offset: Number.parseInt(offset, 16), size: size === undefined ? null : Number.parseInt(size, 16) }]
  })

/**
 * The ends of schedulers in a log, oldest first. Lines of other parts of the kernel may come between those of one.
 * @see kernel/sched/ext.c `scx_disable_workfn` (`scx_ops_disable_workfn` before v6.16); `scx_log_sched_disable`, v7.3
 * @since 0.1.0
 * @category parsing
 */
export const parseScxExits = (lines: ReadonlyArray<LogLine>): ReadonlyArray<ScxExitEvent> => {
  const events: Array<ScxExitEvent> = []
  for (let index = 0; index < lines.length; index++) {
    const disabled = disabledBy(lines[index].text)
    if (disabled === undefined) continue
    const { reason, scheduler } = disabled
    // Where all was well the kernel prints neither a message nor a stack.
    const normal = NORMAL.has(reason)
    const { message, stack } = normal ? { message: null, stack: [] } : explanation(lines, index + 1, scheduler)
    const [, comm, pid, seconds, millis] = STALLED.exec(message ?? "") ?? []
    const isWatchdogs = stack.some(({ name }) => WATCHDOG.has(name))
    const isStall = reason === STALL || comm !== undefined || isWatchdogs
    events.push({
      atMicros: lines[index].atMicros,
      scheduler,
      kind: normal ? "normal" : isStall ? "stall" : ERRORS.has(reason) ? "error" : "other",
      reason,
      message,
      stalled: comm === undefined
        ? null
        : { comm, pid: Number(pid), millis: Number(seconds) * 1000 + Number(millis) },
      stack,
      stackIsWatchdogs: isWatchdogs
    })
  }
  return events
}

/** The names in a line of `DISABLED`. No regular expression: a hostile line can have its words thousands of times. */
const disabledBy = (text: string): { readonly scheduler: string; readonly reason: string } | undefined => {
  const [before, between, after] = DISABLED
  const from = before.exec(text)?.[0].length
  const at = text.endsWith(after) ? text.lastIndexOf(between) : -1
  return from === undefined || at < from
    ? undefined
    : { scheduler: text.slice(from, at), reason: text.slice(at + between.length, -after.length) }
}

/** The message and the stack from line `first` on, behind that of a scheduler's end; another line of sched_ext ends them. */
const explanation = (lines: ReadonlyArray<LogLine>, first: number, scheduler: string) => {
  const prefix = `sched_ext: ${scheduler}: `
  let message: string | null = null
  const stack: Array<StackSymbol> = []
  for (let index = first; index < lines.length; index++) {
    const { text } = lines[index]
    if (message === null && stack.length === 0 && text.startsWith(prefix)) {
      message = text.slice(prefix.length)
      continue
    }
    const frames = extractStackSymbols([text])
    if (text.startsWith("sched_ext:") || (frames.length === 0 && stack.length > 0)) break
    stack.push(...frames)
  }
  return { message, stack }
}
