import * as Schema from "effect/Schema"
import { FormatError } from "./FormatError.ts"

/**
 * The six kinds of not having a value. `absent`: this kernel or map does not have it; `empty`: it has it, with nothing in it;
 * `unreadable`: its memory, file or system call could not be read; `truncated`: there is more than was read; `unsupported`:
 * this source or this version of ktstr does not read it; `corrupted`: what was read contradicts itself.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ReasonKind = /* @__PURE__ */ Schema.Literal(
  "absent",
  "empty",
  "unreadable",
  "truncated",
  "unsupported",
  "corrupted"
).annotations({ identifier: "ReasonKind" })
/**
 * The type that the Schema `ReasonKind` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type ReasonKind = typeof ReasonKind.Type

/**
 * Why something is missing: a kind to act on, and one line for people, which does not repeat the kind.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reason {
  readonly kind: ReasonKind
  readonly text: string
}

/**
 * The JSON form of a `Reason`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Reason: Schema.Schema<Reason> = /* @__PURE__ */ Schema.Struct({ kind: ReasonKind, text: Schema.String })
  .annotations({
    identifier: "Reason",
    description:
      "why something is missing: `absent`, this kernel does not have it; `empty`; `unreadable`; `truncated`, there "
      + "is more; `unsupported`, by this source or by ktstr; `corrupted`, what was read contradicts itself"
  })

export const absent = (text: string): Reason => ({ kind: "absent", text })
export const unreadable = (text: string): Reason => ({ kind: "unreadable", text })
export const truncated = (text: string): Reason => ({ kind: "truncated", text })
export const unsupported = (text: string): Reason => ({ kind: "unsupported", text })
export const corrupted = (text: string): Reason => ({ kind: "corrupted", text })

/**
 * `kind: text`, for people.
 *
 * @since 0.1.0
 * @category rendering
 */
export const formatReason = ({ kind, text }: Reason): string => `${kind}: ${text}`

/** The same reason, said of `subject`: its text in front. */
export const within = (subject: string, { kind, text }: Reason): Reason => ({ kind, text: `${subject}: ${text}` })

/** The reason in an error: bytes that break a format are corrupted; a layout that the kernel's BTF lacks is unsupported. */
export const toReason = (error: Reason | { readonly message: string }): Reason =>
  "kind" in error ? error : error instanceof FormatError ? corrupted(error.message) : unsupported(error.message)

/** From least to most serious. */
const GRAVITY: ReadonlyArray<ReasonKind> = ["empty", "absent", "unsupported", "truncated", "unreadable", "corrupted"]

/** The more serious of two kinds. */
export const graver = (one: ReasonKind, other: ReasonKind): ReasonKind =>
  GRAVITY.indexOf(other) > GRAVITY.indexOf(one) ? other : one

/** Does it mean that data which was there is missing? An `unsupported` or `absent` part is the source's nature, not a loss. */
export const isLoss = ({ kind }: Reason): boolean => GRAVITY.indexOf(kind) >= GRAVITY.indexOf("truncated")

/** Several reasons as one, of the most serious kind; null when there is none. */
export const combine = (reasons: ReadonlyArray<Reason>): Reason | null =>
  reasons.length === 0 ? null : {
    kind: reasons.map(({ kind }) => kind).reduce(graver),
    text: reasons.map(({ text }) => text).join("; ")
  }
