import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { GuestBtf } from "../../../../src/bpf/guest/programs/GuestBtf.ts"
import { Btf } from "../../../../src/btf/Btf.ts"
import { layout } from "../../../../src/btf/Layout.ts"
import { formatReason } from "../../../../src/core/Reason.ts"
import { BlobWriter } from "../../../btf/BlobWriter.ts"
import { NOWHERE } from "../../../memory/structs/MadeObjects.ts"
import { hex, MadeMaps } from "../MadeMaps.ts"

/** A program's own types: an int and a struct of it. */
const own = (): Uint8Array => {
  const blob = new BlobWriter()
  const int = blob.int("int", 4)
  blob.struct("counts", 4, [{ name: "runs", type: int, bits: 0 }])
  return blob.bytes()
}

const objectsOf = ({ kernel }: MadeMaps) =>
  new GuestBtf(
    kernel,
    Either.getOrThrow(layout(kernel.btf, "btf", ["data", "data_size", "id"], ["base_btf", "kernel_btf", "name"]))
  )

/** A `struct btf` with the id 5, as `MadeMaps` lays it out. */
const object = (data = own()) => {
  const made = new MadeMaps()
  const address = made.object(96)
  const bytes = made.object(data.length)
  made.put(bytes, data)
  made.set64(address, bytes)
  made.set32(address + 8n, data.length)
  made.set32(address + 12n, 5)
  /** It is a kernel's: of the image, or of the module of that name. */
  const setKernel = (name: string) => {
    made.put(address + 24n, Uint8Array.of(1))
    made.put(address + 25n, Buffer.from(name))
  }
  const read = (at = address) => {
    const types = objectsOf(made)
    return Either.match(types.at(at), {
      onLeft: formatReason,
      onRight: ({ btf, id, module }) => [id, module, btf.idsByName("counts").length, btf.idsByName("bpf_map").length]
    })
  }
  return { made, address, bytes, setKernel, read }
}

describe("GuestBtf", () => {
  it("reads a program's own types", () => {
    assert.deepStrictEqual(object().read(), [5, null, 1, 0])
  })

  it("takes those of the kernel's image for what they are, whatever their bytes", () => {
    const { made, address, read, setKernel } = object()
    setKernel("vmlinux")
    made.set64(address, NOWHERE)
    assert.deepStrictEqual(read(), [5, null, 0, 1])
  })

  it("reads a module's types, which continue those of the kernel", () => {
    const { kernel } = new MadeMaps()
    const blob = new BlobWriter({ endId: kernel.btf.endId, strings: stringBytes(new MadeMaps()) })
    const int = blob.int("module_int", 4)
    blob.struct("counts", 4, [{ name: "runs", type: int, bits: 0 }])
    const { made, address, read, setKernel } = object(blob.bytes())
    setKernel("bpf_testmod")
    made.set64(address + 16n, made.object(96))
    assert.deepStrictEqual(read(), [5, "bpf_testmod", 1, 1])
  })

  it("reads a program's types on a kernel before 5.11, whose objects do not say whether they are a kernel's", () => {
    const { address, made } = object()
    const blob = new BlobWriter()
    const int = blob.int("unsigned int", 4)
    blob.struct("btf", 16, [
      { name: "data", type: blob.int("unsigned long", 8), bits: 0 },
      { name: "data_size", type: int, bits: 64 },
      { name: "id", type: int, bits: 96 }
    ])
    const before = Either.getOrThrow(Btf.parse(blob.bytes(), { subject: "5.10" }))
    const shape = Either.getOrThrow(
      layout(before, "btf", ["data", "data_size", "id"], ["base_btf", "kernel_btf", "name"])
    )
    const { btf, id, module } = Either.getOrThrow(new GuestBtf(made.kernel, shape).at(address))
    assert.deepStrictEqual([id, module, btf.idsByName("counts").length], [5, null, 1])
  })

  it("says that the object, or its bytes, cannot be read", () => {
    const { address, made, read } = object()
    assert.strictEqual(read(NOWHERE), "unreadable: 0xffffdeadbeef0000 is not mapped")
    assert.strictEqual(read(made.atTheEnd(90)), `unreadable: ${hex(made.atTheEnd(0))} is not mapped`)
    made.set64(address, NOWHERE)
    assert.strictEqual(read(), "unreadable: BTF 5: 0xffffdeadbeef0000 is not mapped")
  })

  it("does not believe a length that no types have, or bytes that are none", () => {
    const { address, bytes, made, read } = object()
    made.set32(address + 8n, 0xffff_ffff)
    assert.strictEqual(read(), `unreadable: BTF 5: ${hex(bytes & ~4095n)} is asked for too many bytes`)
    made.set32(address + 8n, 20)
    assert.match(String(read()), /^corrupted: BTF 5/)
    made.set32(address + 8n, own().length)
    made.set32(bytes, 0)
    assert.match(String(read()), /^corrupted: BTF 5/)
  })

  it("reads an object once", () => {
    const { address, made } = object()
    const types = objectsOf(made)
    assert.strictEqual(types.at(address), types.at(address))
  })
})

/** The length of the strings of a made kernel's types; include/uapi/linux/btf.h `struct btf_header.str_len`. */
const stringBytes = ({ made }: MadeMaps): number => {
  const blob = made.options.btf as Uint8Array
  return new DataView(blob.buffer, blob.byteOffset).getUint32(20, true)
}
