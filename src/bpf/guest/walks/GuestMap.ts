import type * as Either from "effect/Either"
import type { Btf } from "../../../btf/Btf.ts"
import type { Reason } from "../../../core/Reason.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import type { KernelSpace } from "../../../memory/KernelSpace.ts"
import type { PerCpuCopies } from "../../../memory/structs/PerCpuCopies.ts"
import type { MapInfo } from "../../MapInfo.ts"
import type { OpenedMap } from "../../OpenMap.ts"
import type { KernelObjects } from "../objects/KernelObjects.ts"
import type { BpfLayouts } from "./BpfLayouts.ts"

/** A map of a guest, and what its reader may need. */
export interface GuestMap {
  readonly info: MapInfo
  /** The number of its type, `enum bpf_map_type`. */
  readonly type: number
  /** `btf_vmlinux_value_type_id`: of struct_ops maps, else 0. */
  readonly kernelTypeId: number
  /** The page number and offset of its `struct bpf_map`, with which the struct of its type begins. */
  readonly page: number
  readonly offset: number
  readonly kernel: GuestKernelService
  readonly space: KernelSpace
  /** Another cursor over the same memory, for what is looked at beside a walk. */
  readonly secondCursor: KernelSpace
  readonly copies: PerCpuCopies
  readonly layouts: BpfLayouts
  readonly objects: KernelObjects
  /** The types of the `struct btf` at an address; the kernel's own for its vmlinux. */
  readonly typesAt: (address: bigint) => Either.Either<Btf, Reason>
}

/** Where a value lies: CPU n's at element n in per-CPU maps (undefined: that CPU is not possible), else one address. */
export type ValuePlaces = ReadonlyArray<bigint | undefined>

/** A map of a guest that is open. */
export interface OpenedGuestMap extends OpenedMap {
  /** The value of an existing key, in maps that keep values where they can be written. */
  readonly find?: (key: Uint8Array) => Either.Either<ValuePlaces, Reason>
}

/** Gets ready to read a map of one type, or says why it cannot. */
export type MapOpener = (map: GuestMap) => Either.Either<OpenedGuestMap, Reason | { readonly message: string }>
