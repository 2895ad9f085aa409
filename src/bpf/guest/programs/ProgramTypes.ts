import * as Either from "effect/Either"
import { Btf } from "../../../btf/Btf.ts"
import { type Layout, layout, type LayoutError } from "../../../btf/Layout.ts"
import { cString } from "../../../core/CString.ts"
import { type Reason, toReason, within } from "../../../core/Reason.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import {} from "../../../memory/structs/StructReader.ts"

/** A `struct btf` of the kernel: its types, its id, and of which module it is. */
export interface KernelTypes {
  readonly btf: Btf
  readonly id: number
  /** Null: the kernel's own, or a program's. */
  readonly module: string | null
}

/** The BTF objects of a kernel, each read once. */
export class ProgramTypes {
  private readonly known = new Map<bigint, Either.Either<KernelTypes, Reason>>()

  static readonly make = (kernel: GuestKernelService): Either.Either<ProgramTypes, LayoutError> =>
    Either.map(
      // kernel/bpf/btf.c `struct btf`, v6.12
      layout(kernel.btf, "btf", ["data", "data_size", "id", "base_btf", "kernel_btf", "name"]),
      (found) => new ProgramTypes(kernel, found)
    )

  private constructor(
    private readonly kernel: GuestKernelService,
    private readonly object: Layout<"data" | "data_size" | "id" | "base_btf" | "kernel_btf" | "name">
  ) {}

  /** The types of the `struct btf` at an address, or why there are none. */
  at(address: bigint): Either.Either<KernelTypes, Reason> {
    const known = this.known.get(address) ?? this.read(address)
    this.known.set(address, known)
    return known
  }

  private read(address: bigint): Either.Either<KernelTypes, Reason> {
    const { kernel, object: { at, size, sizeOf } } = this
    const { space } = kernel
    const bytes = space.read(address, size)
    if (bytes === undefined) return Either.left(space.faultReason)
    const view = new DataView(bytes.buffer)
    const id = view.getUint32(at.id, true)
    const name = cString(view, at.name, sizeOf.name)
    const isKernel = view.getUint8(at.kernel_btf) !== 0
    const module = isKernel && name !== "vmlinux" ? name : null
    const isSplit = view.getBigUint64(at.base_btf, true) !== 0n
    if (isKernel && !isSplit) return Either.right({ btf: kernel.btf, id, module })
    const data = space.read(view.getBigUint64(at.data, true), view.getUint32(at.data_size, true))
    if (data === undefined) return Either.left(within(`BTF ${id}`, space.faultReason))
    const subject = `BTF ${id}`
    return Either.mapBoth(Btf.parse(data, isSplit ? { subject, base: kernel.btf } : { subject }), {
      onLeft: toReason,
      onRight: (btf) => ({ btf, id, module })
    })
  }
}
