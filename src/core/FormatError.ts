import * as Data from "effect/Data"
import * as Either from "effect/Either"
import { escapeText } from "./EscapeText.ts"

/**
 * Bytes that break a format's rules at `offset`, counted from the start of the caller's buffer.
 *
 * @since 0.1.0
 * @category errors
 */
export class FormatError extends Data.TaggedError("FormatError")<{ // without Schema: see src/bpf/thread/worker.ts
  readonly format:
    | "ELF"
    | "BTF"
    | "kernel image"
    | "compressed data"
    | "kallsyms"
    | "LiME"
    | "kdump"
    | "flattened core"
    | "VMCOREINFO"
    | "cpio"
    | "memory layout"
    | "registers"
  readonly subject: string
  readonly offset: number
  readonly expected: string
}> {
  override get message() {
    return escapeText(`${this.subject}: ${this.format} at byte ${this.offset}: expected ${this.expected}`) // it has names of the file's
  }
}

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
