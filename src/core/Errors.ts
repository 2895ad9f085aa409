import type { PlatformError, SystemErrorReason } from "@effect/platform/Error"
import * as Either from "effect/Either"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { getSystemErrorName } from "node:util"

/**
 * A system call failed on `subject`. `errno` is the positive Linux number, `code` its name.
 *
 * @since 0.1.0
 * @category errors
 */
export class SyscallError extends Schema.TaggedError<SyscallError>("ktstr/SyscallError")("SyscallError", {
  syscall: Schema.String,
  subject: Schema.String,
  errno: Schema.Int,
  code: Schema.String
}) {
  /** The error of a positive `errno`, with its name. */
  static readonly of = (syscall: string, subject: string, errno: number): SyscallError =>
    new SyscallError({ syscall, subject, errno, code: errnoName(errno) })
  override get message() {
    return `${this.syscall} ${this.subject}: ${this.code} (errno ${this.errno})`
  }
}

/**
 * `ENOENT` for 2; `errno N` for a number that has no name.
 *
 * @since 0.1.0
 * @category reading
 */
export const errnoName = (errno: number): string => {
  try {
    return getSystemErrorName(-errno)
  } catch {
    return `errno ${errno}`
  }
}

/**
 * Bytes that break a format's rules at `offset`, counted from the start of the caller's buffer.
 *
 * @since 0.1.0
 * @category errors
 */
export class FormatError extends Schema.TaggedError<FormatError>("ktstr/FormatError")("FormatError", {
  format: Schema.Literal(
    "ELF",
    "BTF",
    "kernel image",
    "compressed data",
    "kallsyms",
    "LiME",
    "VMCOREINFO",
    "cpio",
    "memory layout"
  ),
  subject: Schema.String,
  offset: Schema.Number,
  expected: Schema.String
}) {
  override get message() {
    return `${this.subject}: ${this.format} at byte ${this.offset}: expected ${this.expected}`
  }
}

/**
 * The host lacks a program, a device or a right that the work needs; exit code 3. `hint` is what the user can do.
 *
 * @since 0.1.0
 * @category errors
 */
export class HostLacks extends Schema.TaggedError<HostLacks>("ktstr/HostLacks")("HostLacks", {
  what: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `${this.what}: ${this.why}; ${this.hint}`
  }
}

/**
 * Whether an error came from a file operation or a program. A `PlatformError` is inspected in this file only: in
 * Effect 4 it is one class with a reason.
 */
export const isPlatformError = (error: unknown): error is PlatformError =>
  Predicate.isTagged(error, "SystemError") || Predicate.isTagged(error, "BadArgument")

/** Why a file operation or a program failed; undefined: for none of the platform's reasons. */
export const reasonOf = (error: unknown): SystemErrorReason | undefined =>
  isPlatformError(error) && error._tag === "SystemError" ? error.reason : undefined

/** The system's words of a failed file operation or program, which name the system call and the path. */
export const platformText = (error: PlatformError): string =>
  (error._tag === "SystemError" ? error.description : undefined) ?? error.message

/** The path that a failed file operation was for, or an empty text. */
export const pathOf = (error: PlatformError): string =>
  error._tag === "SystemError" ? error.pathOrDescriptor?.toString() ?? "" : ""

/**
 * Run a throwing parser: its `FormatError` becomes a value, anything else is a bug and is thrown on.
 *
 * @since 0.1.0
 * @category utilities
 */
export const parsing = <A>(parse: () => A): Either.Either<A, FormatError> =>
  Either.try({
    try: parse,
    catch: (error) => {
      if (error instanceof FormatError) return error
      throw error
    }
  })
