import type { PlatformError, SystemErrorReason } from "@effect/platform/Error"
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
 * Text that should name a kernel and does not: a kernel id, the value of `KTSTR_KERNEL`, or a cache key. `why` says what to
 * write instead.
 *
 * @since 0.1.0
 * @category errors
 */
export class KernelIdInvalid extends Schema.TaggedError<KernelIdInvalid>("ktstr/KernelIdInvalid")("KernelIdInvalid", {
  given: Schema.Literal("kernel id", "KTSTR_KERNEL", "cache key"),
  id: Schema.String,
  why: Schema.String
}) {
  override get message() {
    return `${this.given}${this.given === "KTSTR_KERNEL" ? "=" : " "}${JSON.stringify(this.id)}: ${this.why}`
  }
}

/**
 * No kernel with that id `where` it was looked for: at a path, in the cache, in Debian's suites, among the releases of a
 * kernel.org mirror. `close`: what there is instead, the closest first.
 *
 * @since 0.1.0
 * @category errors
 */
export class KernelNotFound extends Schema.TaggedError<KernelNotFound>("ktstr/KernelNotFound")("KernelNotFound", {
  where: Schema.Literal("path", "cache", "debian", "kernel.org"),
  kernel: Schema.String,
  why: Schema.String,
  hint: Schema.String,
  close: Schema.optionalWith(Schema.Array(Schema.String), { default: () => [] })
}) {
  /** No kernel in a file or a directory. */
  static readonly atPath = (path: string, why: string): KernelNotFound =>
    new KernelNotFound({
      where: "path",
      kernel: path,
      why,
      hint: "give a bzImage, a vmlinux, or a directory that holds one"
    })
  override get message() {
    return `${this.where === "path" ? "no kernel at" : "kernel"} ${this.kernel}: ${this.why}; ${this.hint}`
  }
}

/**
 * Something could not be fetched into the cache: a URL, a git repository, package lists, a package. `reason` is set where
 * it is known: `absent`, the server has no such thing; `untrusted`, it is not signed; `unreachable`, the server does not
 * answer. `status` is that of HTTP.
 *
 * @since 0.1.0
 * @category errors
 */
export class FetchFailed extends Schema.TaggedError<FetchFailed>("ktstr/FetchFailed")("FetchFailed", {
  step: Schema.Literal("get", "download", "fetch", "unpack", "store", "start"),
  subject: Schema.String,
  why: Schema.String,
  hint: Schema.String,
  reason: Schema.optional(Schema.Literal("absent", "untrusted", "unreachable")),
  status: Schema.optional(Schema.Int)
}) {
  override get message() {
    return `cannot ${this.step} ${this.subject}: ${this.why}; ${this.hint}`
  }
}

/**
 * Whether an error came from a file operation or a program. A `PlatformError` is inspected in this file only: in
 * Effect 4 it is one class with a reason.
 */
export const isPlatformError = (error: unknown): error is PlatformError =>
  Predicate.isTagged(error, "SystemError") || Predicate.isTagged(error, "BadArgument")

/** Why a file operation or a program failed; undefined: the error is not the platform's, or gives no reason. */
export const reasonOf = (error: unknown): SystemErrorReason | undefined =>
  isPlatformError(error) && error._tag === "SystemError" ? error.reason : undefined

/** The system's words of a failed file operation or program, which name the system call and the path. */
export const platformText = (error: PlatformError): string =>
  (error._tag === "SystemError" ? error.description : undefined) ?? error.message

/** The reason of a failed file operation without its system call: `ENOENT: no such file or directory`. */
export const whyOf = (error: PlatformError): string => platformText(error).replace(/, .*$/, "")

/** The path that a failed file operation was for, or an empty text. */
export const pathOf = (error: PlatformError): string =>
  error._tag === "SystemError" ? error.pathOrDescriptor?.toString() ?? "" : ""
