import * as Either from "effect/Either"
import { Btf } from "../../../src/btf/Btf.ts"
import type { KernelSpace } from "../../../src/memory/KernelSpace.ts"
import { BlobWriter } from "../../btf/BlobWriter.ts"
import { LOADED, MadeKernel } from "../MadeKernel.ts"

/** A member: its name, its bytes from the struct's start, and its type. */
type MadeMember = readonly [name: string, at: number, type: number]

/** BTF of the structs that a test needs, by what `declare` says of them. */
export const madeTypes = (declare: (blob: BlobWriter, struct: DeclareStruct) => void): Btf =>
  Either.getOrThrow(Btf.parse(madeTypeBytes(declare), { subject: "made" }))

/** The same as bytes. */
export const madeTypeBytes = (declare: (blob: BlobWriter, struct: DeclareStruct) => void): Uint8Array => {
  const blob = new BlobWriter()
  declare(
    blob,
    (name, size, members) => blob.struct(name, size, members.map(([name, at, type]) => ({ name, type, bits: at * 8 })))
  )
  return blob.bytes()
}

export type DeclareStruct = (name: string, size: number, members: ReadonlyArray<MadeMember>) => number

/** Objects in a made kernel's memory, put there by hand; addresses are those of the direct map. */
export class MadeObjects {
  readonly space: KernelSpace
  private free = 0
  private end = 0

  constructor(readonly made = new MadeKernel()) {
    this.space = made.space()
  }

  /** A fresh object of `size` bytes: its address. */
  object(size: number): bigint {
    const room = Math.ceil(size / 8) * 8
    while (this.free + room > this.end) {
      const page = this.made.page()
      if (page !== this.end) this.free = page
      this.end = page + 4096
    }
    this.free += room
    return this.made.direct(this.free - room)
  }

  set64(address: bigint, ...words: ReadonlyArray<bigint>): void {
    words.forEach((word, index) => this.made.set64(this.physical(address) + index * 8, word))
  }

  get64(address: bigint): bigint {
    return this.made.get64(this.physical(address))
  }

  set32(address: bigint, value: number): void {
    this.made.view.setUint32(this.physical(address) - LOADED, value, true)
  }

  put(address: bigint, bytes: Uint8Array): void {
    this.made.bytes.set(bytes, this.physical(address) - LOADED)
  }

  private physical(address: bigint): number {
    return Number(address - this.made.options.directBase)
  }
}

/** An address that no page table maps. */
export const NOWHERE = 0xffff_dead_beef_0000n
