import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { Btf } from "../../src/btf/Btf.ts"
import { Kind } from "../../src/btf/BtfType.ts"
import { layout, layoutOf } from "../../src/btf/Layout.ts"
import { BlobWriter } from "./BlobWriter.ts"

const parse = (bytes: Uint8Array): Btf => Either.getOrThrow(Btf.parse(bytes, { subject: "BTF of kernel 6.12" }))

const kernel = (): Btf => {
  const writer = new BlobWriter()
  const int = writer.int("int", 4, { signed: true })
  const pointer = writer.ref(Kind.PTR, 0)
  const old = writer.int("bits of an old blob", 4, { bits: 3, offset: 1 })
  const anonymous = writer.struct("", 8, [{ name: "low", type: int, bits: 0 }, { name: "high", type: int, bits: 32 }])
  const choice = writer.struct("", 8, [{ name: "whole", type: pointer, bits: 0 }, {
    name: "",
    type: anonymous,
    bits: 0
  }], Kind.UNION)
  const xarray = writer.struct("xarray", 16, [{ name: "xa_flags", type: int, bits: 32 }, {
    name: "xa_head",
    type: pointer,
    bits: 64
  }])
  const qualified = writer.ref(Kind.CONST, writer.ref(Kind.TYPEDEF, xarray, "xarray_t"))
  writer.struct("idr", 48, [
    { name: "idr_rt", type: qualified, bits: 0 },
    { name: "", type: choice, bits: 128 },
    { name: "flag", type: int, bits: 197, width: 3 },
    { name: "constructor", type: writer.array(int, 4), bits: 224 },
    { name: "old", type: old, bits: 352, width: 0 }
  ])
  writer.struct("bucket", 64, [{ name: "other", type: int, bits: 0 }])
  writer.struct("bucket", 16, [{ name: "head", type: pointer, bits: 0 }])
  writer.struct("bucket", 32, [{ name: "head", type: pointer, bits: 64 }, { name: "raw_lock", type: int, bits: 128 }])
  writer.type(Kind.FUNC, { name: "bucket", third: 0 })
  writer.ref(Kind.TYPEDEF, anonymous, "atomic_t")
  return parse(writer.bytes())
}
const messageOf = (found: Either.Either<unknown, Error>): string =>
  Either.match(found, { onLeft: (error) => error.message, onRight: () => "no error" })

describe("layout", () => {
  const btf = kernel()

  it("finds members, members of members, and those of anonymous ones", () => {
    const found = Either.getOrThrow(
      layout(btf, "idr", ["idr_rt", "idr_rt.xa_head", "whole", "high", "constructor"], ["idr_rt.absent", "low"])
    )
    assert.strictEqual(found.struct, "idr")
    assert.strictEqual(found.size, 48)
    assert.deepStrictEqual({ ...found.at }, {
      idr_rt: 0,
      "idr_rt.xa_head": 8,
      whole: 16,
      high: 20,
      constructor: 28,
      low: 16
    })
    assert.deepStrictEqual({ ...found.sizeOf }, {
      idr_rt: 16,
      "idr_rt.xa_head": 8,
      whole: 8,
      high: 4,
      constructor: 16,
      low: 4
    })
    assert.isUndefined(found.at["idr_rt.absent"])
    assert.isUndefined(found.bits.high)
    const inner = Either.getOrThrow(layoutOf(btf, found.typeOf.idr_rt, ["xa_flags"]))
    assert.deepStrictEqual([inner.struct, inner.at.xa_flags], ["xarray", 4])
  })

  it("gives bit-fields their place in bits, however the blob describes them", () => {
    const { at, bits, sizeOf } = Either.getOrThrow(layout(btf, "idr", ["flag", "old"]))
    assert.deepStrictEqual({ ...bits }, { flag: { offset: 197, size: 3 }, old: { offset: 353, size: 3 } })
    assert.deepStrictEqual([at.flag, at.old, sizeOf.flag], [24, 44, 1])
  })

  it("takes the largest struct of a name that has all that is required", () => {
    assert.strictEqual(Either.getOrThrow(layout(btf, "bucket", [])).size, 64)
    assert.strictEqual(Either.getOrThrow(layout(btf, "bucket", ["head"])).size, 32)
    assert.strictEqual(Either.getOrThrow(layout(btf, "bucket", ["head"])).at.head, 8)
    assert.strictEqual(Either.getOrThrow(layout(btf, "bucket", ["other"], ["head"])).size, 64)
    assert.strictEqual(Either.getOrThrow(layout(btf, "atomic_t", ["high"])).at.high, 4)
  })

  it("says which struct or member is missing", () => {
    assert.strictEqual(
      messageOf(layout(btf, "scx_sched", ["x"])),
      "BTF of kernel 6.12: no struct scx_sched: this kernel was built without what uses it, or names it differently"
    )
    assert.strictEqual(
      messageOf(layout(btf, "idr", ["high", "idr_rt.missing"])),
      "BTF of kernel 6.12: struct idr has no member idr_rt.missing: this kernel is older or newer than ktstr knows, or "
        + "was built without it"
    )
    assert.match(messageOf(layout(btf, "bucket", ["head", "gone"])), /has no member head in any of its 3 forms/)
    assert.match(messageOf(layout(btf, "idr", ["whole.x"])), /no member whole.x/)
    assert.match(messageOf(layout(btf, "idr", ["idr_rt."])), /no member idr_rt\./)
    assert.match(messageOf(layoutOf(btf, 1, ["x"])), /no struct of type 1/)
    assert.match(messageOf(layoutOf(btf, 4, ["x"])), /struct of type 4 has no member x/)
  })
})

it("does not follow anonymous members that contain one another", () => {
  const writer = new BlobWriter()
  writer.struct("ring", 8, [{ name: "", type: 2, bits: 0 }, { name: "", type: 1, bits: 0 }])
  writer.struct("", 8, [{ name: "", type: 1, bits: 0 }, { name: "", type: 2, bits: 0 }])
  assert.match(messageOf(layout(parse(writer.bytes()), "ring", ["x"])), /no member x/)
})
