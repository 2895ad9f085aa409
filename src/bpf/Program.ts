import * as Schema from "effect/Schema"
import type { Btf } from "../btf/Btf.ts"
import { Reason } from "../core/Reason.ts"

/** A u64: a number when it is exact, else decimal digits. */
export const Count = Schema.Union(Schema.Int, Schema.String).annotations({ identifier: "Count" })
export type Count = typeof Count.Type

export const countOf = (value: bigint): Count => {
  const near = Number(value)
  return Number.isSafeInteger(near) ? near : value.toString()
}

/**
 * The target of a program, by the type it names in the BTF of the kernel, a module or another program. `name` of
 * `struct_ops` is `STRUCT.MEMBER`, of a tracepoint its own without `btf_trace_`, of an iterator its own without `bpf_iter_`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const ProgramTarget = Schema.Struct({
  kind: Schema.Literal("function", "tracepoint", "iterator", "struct_ops"),
  name: Schema.String,
  module: Schema.NullOr(Schema.String).annotations({ description: "of which kernel module; null: the kernel itself" }),
  program: Schema.NullOr(Schema.Int).annotations({ description: "of which BPF program; null: of none" })
}).annotations({ identifier: "ProgramTarget" })
/**
 * The type that the Schema `ProgramTarget` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type ProgramTarget = typeof ProgramTarget.Type

/**
 * A BPF program: what `bpf_prog_info` of bpf(2) says, and more. Null is what this kernel does not have, or what could not
 * be read: then `problem` says why.
 * @see include/linux/bpf.h `struct bpf_prog`, `struct bpf_prog_aux`; kernel/bpf/syscall.c `bpf_prog_get_info_by_fd`; v6.12
 * @since 0.1.0
 * @category schemas
 */
export class Program extends Schema.Class<Program>("ktstr/Program")({
  id: Schema.Int.annotations({ description: "the kernel's id of the program, unique while it lives" }),
  name: Schema.String.annotations({ description: "whole, from its BTF, where the kernel's 15 bytes cut it" }),
  type: Schema.String.annotations({ description: "enum bpf_prog_type in bpftool's spelling, or `type N`" }),
  attachType: Schema.NullOr(Schema.String).annotations({
    description: "enum bpf_attach_type as the program was loaded for it; null: for none, or the type's first"
  }),
  target: Schema.NullOr(ProgramTarget),
  tag: Schema.String.annotations({ description: "hash of its instructions, 16 hex digits" }),
  uid: Schema.NullOr(Schema.Int).annotations({ description: "of the user who loaded it" }),
  loadedAt: Schema.NullOr(Count).annotations({ description: "nanoseconds of CLOCK_BOOTTIME" }),
  instructions: Schema.Int.annotations({ description: "BPF instructions as the verifier left them, 8 bytes each" }),
  verifiedInstructions: Schema.NullOr(Count).annotations({ description: "that the verifier looked at on all paths" }),
  jitedBytes: Schema.NullOr(Schema.Int).annotations({ description: "of machine code; 0: it is interpreted" }),
  runs: Schema.NullOr(Count).annotations({
    description: "of all possible CPUs, while kernel.bpf_stats_enabled was set"
  }),
  runNanos: Schema.NullOr(Count).annotations({ description: "as `runs`: time in it" }),
  misses: Schema.NullOr(Count).annotations({ description: "runs that recursion forbade" }),
  mapIds: Schema.NullOr(Schema.Array(Schema.Int)),
  btfId: Schema.NullOr(Schema.Int).annotations({ description: "the kernel's id of the program's BTF; null: none" }),
  problem: Schema.NullOr(Reason)
}) {}

/**
 * The target that a type of the kernel's BTF stands for. Without an attach type, a struct_ops program's is the struct
 * alone.
 */
export const targetNamed = (
  btf: Btf,
  typeId: number,
  type: string,
  attachType: number | undefined
): Pick<ProgramTarget, "kind" | "name"> => {
  const found = btf.type(typeId)
  const name = btf.nameOf(typeId)
  if (type === "struct_ops" && found?.kind === "STRUCT") {
    const member = attachType === undefined ? "" : `.${found.members[attachType]?.name ?? `member ${attachType}`}`
    return { kind: "struct_ops", name: `${name}${member}` }
  }
  if (found?.kind === "TYPEDEF") return { kind: "tracepoint", name: name.replace(/^btf_trace_/, "") }
  return name.startsWith("bpf_iter_") && type === "tracing"
    ? { kind: "iterator", name: name.slice("bpf_iter_".length) }
    : { kind: "function", name }
}

/** `BPF_OBJ_NAME_LEN` (include/uapi/linux/bpf.h): the bytes of a map's or program's name, with its NUL. */
export const NAME_BYTES = 16

/**
 * The whole name of a program: one that fills its field may be cut, and is then the start of its main function's, which
 * `mainFunction` gives (of `func_info[0].type_id`; include/uapi/linux/bpf.h `struct bpf_func_info`), "" where it cannot.
 */
export const wholeName = (name: string, mainFunction: () => string): string => {
  if (name.length < NAME_BYTES - 1) return name
  const whole = mainFunction()
  return whole.startsWith(name) ? whole : name
}
