import { assert, describe, it, vi } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import type { Layout } from "../../src/btf/Layout.ts"
import { type FieldSpec, flag, int, StructFields, text, uint } from "../../src/sched/StructFields.ts"

const SIZE = 96 // bytes, words of them behind the last field

interface Made {
  readonly spec: FieldSpec
  readonly at: number
  readonly size: number
  readonly bits: { readonly offset: number; readonly size: number } | undefined
}

/** The same class where the process forbids code from strings. */
const Plain = await (async () => {
  vi.doMock("../../src/btf/render/MakeFunction.ts", () => ({ makeFunction: () => null }))
  vi.resetModules()
  return (await import("../../src/sched/StructFields.ts")).StructFields
})()

const fieldsOf = (
  made: ReadonlyArray<Made>,
  Class = StructFields
): StructFields<{ readonly [field: string]: FieldSpec }> => {
  const by = <A>(of: (field: Made) => A): Record<string, A> =>
    Object.fromEntries(made.map((field, n) => [`field${n}`, of(field)]))
  const found: Layout<string, string> = {
    struct: "made",
    typeId: 1,
    size: SIZE,
    fields: Object.keys(by(({ at }) => at)),
    at: by(({ at }) => at),
    sizeOf: by(({ size }) => size),
    typeOf: by(() => 1),
    bits: Object.fromEntries(made.flatMap(({ bits }, n) => bits === undefined ? [] : [[`field${n}`, bits]])),
    arrays: {},
    called: {}
  }
  return new Class(found, by(({ spec }) => spec))
}

const number = FastCheck.constantFrom(uint(), int(), flag())
const at = FastCheck.integer({ min: 0, max: SIZE - 24 })
const whole = FastCheck.record({
  spec: number,
  at,
  size: FastCheck.constantFrom(1, 2, 4, 8),
  bits: FastCheck.constant(undefined)
})
const words = FastCheck.record({
  spec: FastCheck.constant(text()),
  at,
  size: FastCheck.integer({ min: 1, max: 16 }),
  bits: FastCheck.constant(undefined)
})
const part = FastCheck.tuple(number, at, FastCheck.integer({ min: 0, max: 31 }), FastCheck.integer({ min: 1, max: 32 }))
  .map(
    ([spec, at, shift, size]): Made => ({ spec, at, size: 4, bits: { offset: at * 8 + shift, size } })
  )
const fields = FastCheck.array(FastCheck.oneof(whole, words, part), { minLength: 1, maxLength: 12 })
const contents = FastCheck.uint8Array({ minLength: SIZE, maxLength: SIZE })
/** How many of the bytes are zeros: most numbers of a kernel are small. */
const zeros = FastCheck.integer({ min: 0, max: 255 })

describe("StructFields", () => {
  it.prop("what is made of words is what is read from a view", [fields, contents, zeros], ([made, contents, zeros]) => {
    const fields = fieldsOf(made)
    const make = fields.maker()
    const makeSlowly = fieldsOf(made, Plain).maker()
    for (const start of [0, 3]) { // of a struct before it, and one like it
      const all = Uint8Array.of(...new Uint8Array(start * 4), ...contents.map((byte) => byte < zeros ? 0 : byte))
      const expected = fields.read(new DataView(all.buffer), start * 4)
      assert.deepStrictEqual(make(new Uint32Array(all.buffer), start), expected)
      assert.deepStrictEqual(makeSlowly(new Uint32Array(all.buffer), start), expected)
    }
  })

  it("what is added stands behind the fields, and in place of none", () => {
    for (const Class of [StructFields, Plain]) {
      const one = fieldsOf([{ spec: uint(), at: 0, size: 4, bits: undefined }], Class)
      const make = one.maker<{ field0?: number; more: string; later: undefined }>({
        field0: 7,
        more: "x",
        later: undefined
      })
      const made = JSON.stringify(Object.entries(make(Uint32Array.of(5), 0)))
      assert.strictEqual(made, "[[\"field0\",5],[\"more\",\"x\"],[\"later\",null]]")
    }
  })
})
