import * as Either from "effect/Either"
import { Btf } from "../../../btf/Btf.ts"
import type { Layout } from "../../../btf/Layout.ts"
import { toReason, within } from "../../../core/Reason.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import { type Read, StructReader } from "../../../memory/structs/StructReader.ts"

/** A `struct btf` of the kernel: its types, its id, and of which module it is. */
export interface BtfObject {
  readonly btf: Btf
  readonly id: number
  /** Null: the kernel's own, or a program's. */
  readonly module: string | null
}

/** The BTF objects of a kernel, each read once. */
export class GuestBtf {
  private readonly known = new Map<bigint, Read<BtfObject>>()

  private readonly reader: StructReader

  constructor(
    private readonly kernel: GuestKernelService,
    private readonly layout: Layout<"data" | "data_size" | "id", "base_btf" | "kernel_btf" | "name">
  ) {
    this.reader = new StructReader(kernel.space)
  }

  /** The types of the `struct btf` at an address, or why there are none. */
  at(address: bigint): Read<BtfObject> {
    const known = this.known.get(address) ?? this.read(address)
    this.known.set(address, known)
    return known
  }

  private read(address: bigint): Read<BtfObject> {
    const { kernel, layout } = this
    return Either.flatMap(this.reader.struct(layout, address), (object) => {
      const id = object.uint("id")
      const name = object.text("name") ?? ""
      const isKernel = (object.uint("kernel_btf") ?? 0) !== 0
      const module = isKernel && name !== "vmlinux" ? name : null
      const isSplit = (object.u64("base_btf") ?? 0n) !== 0n
      if (isKernel && !isSplit) return Either.right({ btf: kernel.btf, id, module })
      const subject = `BTF ${id}`
      const data = kernel.space.read(object.u64("data"), object.uint("data_size"))
      if (data === undefined) return Either.left(within(subject, kernel.space.faultReason))
      return Either.mapBoth(Btf.parse(data, isSplit ? { subject, base: kernel.btf } : { subject }), {
        onLeft: toReason,
        onRight: (btf) => ({ btf, id, module })
      })
    })
  }
}
