import * as Either from "effect/Either"
import { Btf } from "../../../btf/Btf.ts"
import { cString } from "../../../core/CString.ts"
import { errnoName } from "../../../core/Errors.ts"
import { type Reason, toReason, unreadable } from "../../../core/Reason.ts"
import { BtfInfoAt, INFO_BYTES } from "./BpfAbi.ts"
import type { BpfCalls } from "./BpfCalls.ts"

/**
 * A BTF object of the kernel.
 *
 * @since 0.1.0
 * @category models
 */
export interface BtfInfo {
  readonly id: number
  /** `vmlinux`, a module's name, or empty: loaded by a program. */
  readonly name: string
  /** Is it the kernel's own, or a module's? */
  readonly kernel: boolean
  /** Bytes. */
  readonly size: number
}

/** The kernel's description of a BTF object, or minus the errno. */
export const btfInfo = (calls: BpfCalls, fd: number): BtfInfo | number => {
  const info = calls.buffer(INFO_BYTES.btf)
  const name = calls.buffer(64)
  // A null name with a length, or a name without, is refused: kernel/bpf/btf.c `btf_get_info_by_fd`, v6.12.
  info.view.setBigUint64(BtfInfoAt.name, name.address, true)
  info.view.setUint32(BtfInfoAt.name_len, name.size, true)
  const result = calls.info(fd, info)
  if (result < 0) return result
  return {
    id: info.view.getUint32(BtfInfoAt.id, true),
    name: cString(name.bytes),
    kernel: info.view.getUint32(BtfInfoAt.kernel_btf, true) !== 0,
    size: info.view.getUint32(BtfInfoAt.btf_size, true)
  }
}

/** The BTF objects of the running kernel by id, each read once. */
export class LiveBtf {
  private readonly known = new Map<number, Either.Either<Btf, Reason>>()
  private readonly owners = new Map<number, string>()

  /** `kernel` is the BTF of vmlinux, on which modules' BTF stands. */
  constructor(private readonly calls: BpfCalls, readonly kernel: Btf) {}

  byId(id: number): Either.Either<Btf, Reason> {
    const known = this.known.get(id) ?? this.read(id)
    this.known.set(id, known)
    return known
  }

  /** `vmlinux` or a module's name; null: it is a program's, or cannot be asked. */
  ownerOf(id: number): string | null {
    this.byId(id)
    return this.owners.get(id) ?? null
  }

  private read(id: number): Either.Either<Btf, Reason> {
    const { calls } = this
    const subject = `BTF object ${id}`
    const failed = (result: number) => Either.left(unreadable(`${subject}: ${errnoName(-result)}`))
    const fd = calls.open("btf", id)
    if (fd < 0) return failed(fd)
    try {
      const about = btfInfo(calls, fd)
      if (typeof about === "number") return failed(about)
      if (about.kernel) this.owners.set(id, about.name)
      if (about.kernel && about.name === "vmlinux") return Either.right(this.kernel)
      const info = calls.buffer(INFO_BYTES.btf)
      const data = calls.buffer(about.size)
      info.view.setBigUint64(BtfInfoAt.btf, data.address, true)
      info.view.setUint32(BtfInfoAt.btf_size, data.size, true)
      const result = calls.info(fd, info)
      if (result < 0) return failed(result)
      const bytes = data.bytes.subarray(0, about.size)
      return Either.mapLeft(
        Btf.parse(bytes, about.kernel ? { subject, base: this.kernel } : { subject }),
        toReason
      )
    } finally {
      calls.close(fd)
    }
  }
}
