import * as HelpDoc from "@effect/cli/HelpDoc"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { getSystemErrorMap, stripVTControlCharacters } from "node:util"
import { SyscallError } from "../../core/Errors.ts"
import { usageMessage } from "../help/CommandLine.ts"
import { escapeControls, escapeLine } from "./escapeControls.ts"
import { writeMessage } from "./Streams.ts"

/** The words of the command line do not fit together. */
export class UsageError extends Schema.TaggedError<UsageError>("ktstr/UsageError")("UsageError", {
  problem: Schema.String
}) {
  override get message() {
    return usageMessage(this.problem)
  }
}

/** A file that an option names cannot be read. */
export class FileUnreadable extends Schema.TaggedError<FileUnreadable>("ktstr/FileUnreadable")("FileUnreadable", {
  what: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `cannot read ${this.what}: ${this.why}; ${this.hint}`
  }
}

/** The commands in the guest ended with another status than 0. They have said why, and their status is ours. */
export class GuestStatus extends Schema.TaggedError<GuestStatus>("ktstr/GuestStatus")("GuestStatus", {
  status: Schema.Int
}) {
  override get message() {
    return `the commands in the guest ended with exit status ${this.status}`
  }
}

/** A run that did not pass. Its report has said why. */
export class NotPassed extends Schema.TaggedError<NotPassed>("ktstr/NotPassed")("NotPassed", {
  outcome: Schema.Literal("fail", "inconclusive")
}) {
  override get message() {
    return this.outcome === "fail" ? "the run failed" : "the run is inconclusive"
  }
}

const WRONG_USAGE = [
  "UsageError",
  "KernelIdInvalid",
  "ScenarioInvalid",
  "ProgramInvalid",
  "TopologyError"
]

/**
 * 0 done, 1 the work failed, 2 wrong usage, 3 the host lacks something, 4 a run is inconclusive, 70 a bug of ours, 130
 * interrupted; of commands that ran in a guest for their own sake, theirs.
 */
export const exitCode = <A, E>(exit: Exit.Exit<A, E>): number => {
  if (Exit.isSuccess(exit)) return 0
  if (Cause.isInterruptedOnly(exit.cause)) return 130
  return Option.match(Cause.failureOption(exit.cause), {
    onNone: () => 70,
    onSome: (error) =>
      ValidationError.isValidationError(error) || WRONG_USAGE.some((tag) => Predicate.isTagged(error, tag))
        ? 2
        : Predicate.isTagged(error, "HostLacks")
        ? 3
        : error instanceof GuestStatus
        ? error.status
        : error instanceof NotPassed && error.outcome === "inconclusive"
        ? 4
        : 1
  })
}

/** One line for a failure, a trace for a bug, nothing for an interruption, nor for a failure that was only in the guest. */
export const report = <E>(cause: Cause.Cause<E>): Effect.Effect<void> =>
  Effect.sync(() =>
    Option.match(Cause.failureOption(cause), {
      onNone: () => {
        if (Cause.isInterruptedOnly(cause)) return
        writeMessage(`ktstr: a bug in ktstr, please report it:\n${escapeControls(Cause.pretty(cause))}\n`)
      },
      onSome: (error) =>
        error instanceof GuestStatus || error instanceof NotPassed ||
        writeMessage(`ktstr: ${escapeLine(sentence(error))}\n`)
    })
  )

const sentence = (error: unknown): string => {
  if (ValidationError.isValidationError(error)) {
    return new UsageError({ problem: stripVTControlCharacters(HelpDoc.toAnsiText(error.error)).trim() }).message
  }
  if (error instanceof SyscallError && error.syscall === "open") {
    const why = getSystemErrorMap().get(-error.errno)?.[1] ?? error.code
    return `cannot open ${error.subject === "" ? "a file without a name" : error.subject}: ${why}; check the path`
  }
  if (error instanceof SyscallError && error.syscall === "mmap" && error.code === "ENOMEM") {
    return `cannot map ${error.subject}: no memory for it; is the host out of memory, or its use limited (ulimit -v)?`
  }
  return error instanceof Error ? withFlags(error.message) : String(error)
}

/** The library's errors name its options; what to do is the last part of a message, and there these are flags. */
const withFlags = (message: string): string => {
  const hint = message.lastIndexOf("; ")
  return message.slice(0, hint + 1) + message.slice(hint + 1).replace(
    /(?<![-\w])(memoryMib|consoleFile|cmdline|timeout|silenceTimeout|racy)\b/g,
    (option) => flags[option as keyof typeof flags]
  )
}

const flags = {
  memoryMib: "--memory-mib",
  consoleFile: "--console FILE",
  cmdline: "--cmdline",
  timeout: "--timeout",
  silenceTimeout: "--timeout",
  racy: "--racy"
}
