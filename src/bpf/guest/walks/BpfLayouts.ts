import * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import { bpfHashOffsets, bpfMapOffsets } from "../../../btf/offsets/bpf/BpfMap.ts"
import { bpfProgramOffsets } from "../../../btf/offsets/bpf/BpfProgram.ts"

/**
 * Where the kernel keeps its BPF structures, from its own BTF. `map`, `array` and `btf` are needed to list maps at all;
 * a missing `hash` or `program` blinds only those.
 */
export const bpfLayouts = (btf: Btf) =>
  Either.map(bpfMapOffsets.resolve(btf), (needed) => ({
    ...needed,
    hash: bpfHashOffsets.resolve(btf),
    program: bpfProgramOffsets.resolve(btf)
  }))

export type BpfLayouts = Either.Either.Right<ReturnType<typeof bpfLayouts>>
