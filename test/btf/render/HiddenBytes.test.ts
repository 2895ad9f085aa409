import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { Btf } from "../../../src/btf/Btf.ts"
import { ByteSink } from "../../../src/btf/render/ByteSink.ts"
import { type Codec, compile } from "../../../src/btf/render/Codec.ts"
import { BlobWriter } from "../BlobWriter.ts"
import { compileC } from "../compileC.ts"

const SOURCE = `
typedef unsigned int u32; typedef unsigned long long u64; typedef unsigned char u8;
enum kind { K_NONE, K_A };
struct exact { u64 a; u32 b; u8 c[4]; enum kind kind; int left : 5, right : 27; void *p; };
struct tail { u64 a; int b; };
struct hole { u8 a; u32 b; };
struct text { char comm[8]; }; struct odd { char comm[7]; };
struct truth { _Bool one; _Bool two[3]; };
struct real { float f; double d; };
struct narrow { u32 low : 3; u32 high : 20; };
struct shadow { union { struct { u8 tag; u32 word; }; u64 all; }; };
struct half { union { u8 tag; u32 word; } u[2]; union { char name[4]; u8 raw[4]; }; union { _Bool b; u8 n; }; };
struct list { struct tail tails[2]; struct exact whole[2]; };
struct exact v1; struct tail v2; struct hole v3; struct text v4; struct truth v5; struct real v6; struct narrow v7;
struct shadow v8; struct half v9; struct list v10; struct odd v11;
`

describe("hidden bytes", () => {
  const btf = Either.getOrThrow(Btf.parse(compileC(SOURCE).btf, { subject: "test" }))
  const codecOf = (name: string): Codec =>
    compile(btf, btf.idsByName(name).find((id) => btf.type(id)?.kind === "STRUCT")!)
  const hides = (name: string, bytes: ReadonlyArray<number>): boolean => {
    const { hides, json, size } = codecOf(name)
    assert.strictEqual(bytes.length, size, name)
    const view = new DataView(Uint8Array.from(bytes).buffer)
    const isHiding = hides?.(view, 0) ?? false
    // The writing says the same: interpreted, and by the function that a plan gets in time.
    for (let turn = 0; turn < 2050; turn++) assert.strictEqual(json(view, 0, new ByteSink(512)), isHiding)
    return isHiding
  }

  it("are not looked for in types whose form says all", () => {
    for (const name of ["exact", "shadow"]) assert.isNull(codecOf(name).hides, name)
    for (const name of ["tail", "hole", "text", "odd", "truth", "real", "narrow", "half", "list"]) {
      assert.isNotNull(codecOf(name).hides, name)
    }
  })

  it("of 4,000 bit-fields of an enum with 40,000 names are found by one look at the names", () => {
    const writer = new BlobWriter()
    const type = writer.enum64("e", Array.from({ length: 40_000 }, (_, at) => [`n${at}`, BigInt(at)] as const))
    // each of another bit, so that none shares its plan with the next
    const bits = Array.from({ length: 4000 }, (_, at) => ({ name: `m${at}`, type, bits: at % 320, width: 1 }))
    const id = writer.struct("t", 40, bits)
    const wide = Either.getOrThrow(Btf.parse(writer.bytes(), { subject: "test" }))
    assert.isNull(compile(wide, id).hides)
  })

  it("are padding that is not zero, bytes behind a NUL, odd bools, NaN and -0", () => {
    const padded = [3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert.isFalse(hides("tail", [...padded, 0, 0, 0, 0]))
    assert.isTrue(hides("tail", [...padded, 0xad, 0xde, 0, 0]))
    assert.isTrue(hides("hole", [1, 0, 7, 0, 1, 0, 0, 0]))
    assert.isFalse(hides("text", [0x52, 0, 0, 0, 0, 0, 0, 0]))
    assert.isTrue(hides("text", [0x52, 0, 0x41, 0, 0, 0, 0, 0]))
    assert.isFalse(hides("text", [1, 0, 0x41, 0, 0, 0, 0, 0]), "shown as numbers")
    assert.isFalse(hides("odd", [0x52, 0x52, 0x52, 0x52, 0x52, 0, 0]))
    assert.isTrue(hides("odd", [0x52, 0, 0, 0, 0, 0, 1]))
    assert.isFalse(hides("odd", [0x52, 0x52, 0x52, 0x80, 0, 0, 1]), "shown as numbers")
    assert.isFalse(hides("truth", [0, 1, 0, 1]))
    assert.isTrue(hides("truth", [0, 1, 2, 1]))
    const real = (f: number, d: number): ReadonlyArray<number> => {
      const view = new DataView(new ArrayBuffer(16))
      view.setFloat32(0, f, true)
      view.setFloat64(8, d, true)
      return [...new Uint8Array(view.buffer)]
    }
    assert.isFalse(hides("real", real(1.5, -Infinity)))
    assert.isTrue(hides("real", real(-0, 0)))
    assert.isTrue(hides("real", real(0, NaN)))
    assert.isFalse(hides("narrow", [0xff, 0xff, 0x7f, 0]))
    assert.isTrue(hides("narrow", [0, 0, 0x80, 0]))
    assert.isFalse(
      hides("half", [...padded.slice(0, 8), 0x52, 0, 0x41, 0, 2, 0, 0, 0]),
      "another member of the union shows them"
    )
  })

  it.prop(
    "two values never look alike when their form and their hidden bytes are taken together",
    [
      FastCheck.constantFrom(
        "exact",
        "tail",
        "hole",
        "text",
        "odd",
        "truth",
        "real",
        "narrow",
        "shadow",
        "half",
        "list"
      ),
      FastCheck.gen()
    ],
    ([name, gen]) => {
      const codec = codecOf(name)
      const byte = () =>
        gen(() => FastCheck.oneof(FastCheck.constantFrom(0, 0, 0, 1, 2, 0x52, 0x80, 0x7f), FastCheck.nat(255)))
      const one = Uint8Array.from({ length: codec.size }, byte)
      const other = one.slice()
      other[gen(() => FastCheck.nat(codec.size - 1))] = byte()
      const identity = (bytes: Uint8Array): string => {
        const view = new DataView(bytes.buffer)
        const sink = new ByteSink(64)
        const hidden = codec.json(view, 0, sink) ? Buffer.from(bytes).toString("hex") : ""
        return `${Buffer.from(sink.take()).toString()} ${hidden}`
      }
      assert.strictEqual(identity(one) === identity(other), Buffer.compare(one, other) === 0)
    },
    { fastCheck: { numRuns: 1000 } }
  )
})
