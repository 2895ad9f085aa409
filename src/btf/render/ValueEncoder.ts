import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Btf } from "../Btf.ts"
import { compile } from "./Codec.ts"
import { type Json, toJson } from "./RenderedValue.ts"
import {
  type ArrayPlan,
  bytesPlan,
  type LeafPlan,
  type RenderPlan,
  renderPlan,
  type ScalarPlan,
  type StructPlan
} from "./RenderPlan.ts"
import { treeOf } from "./TreeCodec.ts"
import { ValueNames } from "./ValueNames.ts"

/**
 * JSON that is not a value of the type at `path`: a member's name it does not have, a number that does not fit.
 *
 * @since 0.1.0
 * @category errors
 */
export class EncodeError extends Schema.TaggedError<EncodeError>("ktstr/EncodeError")("EncodeError", {
  /** `in.cpus[3]`; empty for the value itself. */
  path: Schema.String,
  expected: Schema.String,
  /** The value given instead, as JSON, cut short. */
  given: Schema.String
}) {
  override get message() {
    return `${this.path === "" ? "the value" : this.path}: ${this.mismatch}`
  }
  /** As `message`, where the value is a map's key. */
  get keyMessage(): string {
    return `its key${this.path === "" ? "" : `, ${this.path}`}: ${this.mismatch}`
  }
  private get mismatch(): string {
    return `expected ${this.expected}, not ${this.given}`
  }
}

/**
 * A run of bytes that were set, from the start of the value.
 *
 * @since 0.1.0
 * @category models
 */
export interface ByteRun {
  readonly at: number
  readonly length: number
}

/**
 * Put a value, given as the plain JSON that a codec prints of it (`toJson` of `btf/RenderedValue.ts`), into the bytes of
 * `into`, which may hold the present value: what the JSON leaves out, members or padding, stays as it is. Integers and
 * pointers may also be `"0x…"`. Members of a union must agree in the bytes that they share; where a member does not say all
 * of its bytes (`true`, `"NaN"`, what follows a string's NUL) the others decide. `{"$unsupported":…}` and the
 * `{"$omitted":…}` at an array's end, which codecs print, leave their bytes alone.
 *
 * On failure nothing is changed.
 * @returns the bytes that the JSON says, ascending; a byte that is said in part counts
 * @since 0.1.0
 * @category writing
 */
export const encodeValue = (
  btf: Btf,
  typeId: number,
  json: Json,
  into: Uint8Array
): Either.Either<ReadonlyArray<ByteRun>, EncodeError> => encode(renderPlan(btf, typeId), 0, "", json, into)

/**
 * As `encodeValue`, of a map's key. One whose form may hide bytes can also be given as all its bytes in hex digits, after
 * `0x` or not: dumps have them as `keyBytes`.
 *
 * @since 0.1.0
 * @category writing
 */
export const encodeKey = (
  btf: Btf,
  typeId: number,
  json: Json,
  into: Uint8Array
): Either.Either<ReadonlyArray<ByteRun>, EncodeError> =>
  Either.orElse(encodeValue(btf, typeId, json, into), (error) => {
    const digits = typeof json === "string" ? json.replace(/^0x/, "") : ""
    return digits.length === into.length * 2 && compile(btf, typeId).hides !== null
      ? encodeBytes(digits, into)
      : Either.left(error)
  })

/** As `encodeValue`, of bytes without a type: the JSON is a string of hex digits, two for each byte, after `0x` or not. */
export const encodeBytes = (json: Json, into: Uint8Array): Either.Either<ReadonlyArray<ByteRun>, EncodeError> =>
  encode(bytesPlan(into.length), 0, "", json, into)

/**
 * As `encodeValue`, of the part of the value that `path` names: `in.cpus[3].a`. Members of anonymous members count as
 * their parent's; the empty path is the value itself.
 *
 * @since 0.1.0
 * @category writing
 */
export const encodeAt = (
  btf: Btf,
  typeId: number,
  path: string,
  json: Json,
  into: Uint8Array
): Either.Either<ReadonlyArray<ByteRun>, EncodeError> =>
  Either.flatMap(placeOf(renderPlan(btf, typeId), path), ({ at, plan }) => encode(plan, at, path, json, into))

/** The plain JSON of the part of a value that `path` names, as `encodeAt` takes it. */
export const valueAt = (btf: Btf, typeId: number, path: string, bytes: Uint8Array): Either.Either<Json, EncodeError> =>
  Either.map(
    placeOf(renderPlan(btf, typeId), path),
    ({ at, plan }) =>
      toJson(treeOf(plan, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), at, bytes.length, Infinity))
  )

const encode = (
  plan: RenderPlan,
  at: number,
  path: string,
  json: Json,
  into: Uint8Array
): Either.Either<ReadonlyArray<ByteRun>, EncodeError> =>
  Either.try({
    try: () => {
      if (at + plan.extent > into.length) {
        throw new EncodeError({ path, expected: `room for ${at + plan.extent} bytes`, given: `${into.length}` })
      }
      const draft = new Draft(into.slice())
      draft.add(plan, at, path, json)
      draft.settle()
      into.set(draft.bytes)
      return draft.runs()
    },
    catch: (error) => {
      if (error instanceof EncodeError) return error
      throw error
    }
  })

/** JSON for a message: enough of it to recognise. */
export const shownJson = (json: Json): string => {
  const text = JSON.stringify(json)
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
}

const fails = (path: string, expected: string, given: Json): EncodeError =>
  new EncodeError({ path, expected, given: shownJson(given) })

/** The number in whole bytes or a bit-field; `exact` ones may not contradict one another. */
interface Put {
  readonly path: string
  readonly json: Json
  readonly at: number
  readonly bit: number
  readonly bits: number
  readonly value: bigint
}

/** A member that does not say all of its bits: what to put first, and whether the outcome is what it says. */
interface Loose {
  readonly put: Put
  /** The lower is put first; the last puts nothing where others have said enough. */
  readonly rank: 0 | 1 | 2
  readonly holds: (view: DataView) => boolean
}

/** Bytes under construction. All values are collected first, so that the order of union members does not matter. */
class Draft {
  private readonly exact: Array<Put> = []
  private readonly loose: Array<Loose> = []
  private readonly tails: Array<{ readonly from: number; readonly to: number }> = []
  /** By byte, the bits that were said. */
  private readonly said: Uint8Array

  constructor(readonly bytes: Uint8Array) {
    this.said = new Uint8Array(bytes.length)
  }

  add(plan: RenderPlan, at: number, path: string, json: Json): void {
    switch (plan.kind) {
      case "scalar":
        return this.scalar(plan, at, path, json)
      case "pointer":
        return this.whole(at, 64, path, json, integerOf(json, 64, false, path, "an address as \"0x…\""))
      case "float":
        return this.float(plan.extent, at, path, json)
      case "bytes": {
        const digits = typeof json === "string" ? json.replace(/^0x/, "") : ""
        if (typeof json !== "string" || digits.length !== plan.extent * 2 || !/^[0-9a-f]*$/i.test(digits)) {
          throw fails(path, `${plan.extent * 2} hex digits`, json)
        }
        for (const [index, byte] of Buffer.from(digits, "hex").entries()) {
          this.whole(at + index, 8, path, json, BigInt(byte))
        }
        return
      }
      case "text":
        return this.text(plan.extent, plan.signed, at, path, json)
      case "struct":
      case "union":
        return this.members(plan, at, path, json)
      case "array":
        return this.elements(plan, at, path, json)
      case "unsupported":
        if (!isMark(json, "$unsupported")) throw fails(path, `nothing: it cannot be set (${plan.reason})`, json)
    }
  }

  private whole(at: number, bits: number, path: string, json: Json, value: bigint): void {
    this.exact.push({ path, json, at, bit: 0, bits, value: BigInt.asUintN(bits, value) })
  }

  private scalar(plan: ScalarPlan, at: number, path: string, json: Json): void {
    const { bit, bits, form, names, signed } = plan
    const put = (value: bigint): Put => ({ path, json, at, bit, bits, value: BigInt.asUintN(bits, value) })
    if (form === "bool") {
      if (typeof json !== "boolean") throw fails(path, "true or false", json)
      if (!json) this.exact.push(put(0n))
      else this.loose.push({ put: put(1n), rank: 2, holds: (view) => bitsAt(view, at, bit, bits) !== 0n })
      return
    }
    if (form === "enum" && typeof json === "string" && !/^-?\d/.test(json)) {
      const found = names.valueOf(json)
      if (found === undefined) throw fails(path, `a number, or one of ${listOf([...names.byValue.values()])}`, json)
      this.exact.push(put(BigInt(found)))
      return
    }
    this.exact.push(put(integerOf(json, bits, signed, path, form === "enum" ? "a name or an integer" : "an integer")))
  }

  private float(size: number, at: number, path: string, json: Json): void {
    const special = json === "NaN" || json === "Infinity" || json === "-Infinity"
    if (typeof json !== "number" && !special) {
      throw fails(path, "a number, \"NaN\", \"Infinity\" or \"-Infinity\"", json)
    }
    const view = new DataView(new ArrayBuffer(8))
    const value = Number(json)
    if (size === 4) view.setFloat32(0, value, true)
    else view.setFloat64(0, value, true)
    if (!special && !Number.isFinite(size === 4 ? view.getFloat32(0, true) : value)) {
      throw fails(path, `a number that ${size} bytes hold`, json)
    }
    const bits = size * 8
    const put: Put = { path, json, at, bit: 0, bits, value: view.getBigUint64(0, true) }
    const read = (of: DataView): number => size === 4 ? of.getFloat32(at, true) : of.getFloat64(at, true)
    // All ones are NaN in any part that is a float itself.
    const ones = { ...put, value: BigInt.asUintN(bits, -1n) }
    if (Number.isNaN(value)) this.loose.push({ put: ones, rank: 0, holds: (of) => Number.isNaN(read(of)) })
    else if (value === 0) this.loose.push({ put, rank: 1, holds: (of) => read(of) === 0 })
    else this.exact.push(put)
  }

  private text(size: number, signed: boolean, at: number, path: string, json: Json): void {
    if (typeof json === "string") {
      if (json.length >= size || !/^[ -~]*$/.test(json)) {
        throw fails(path, `at most ${size - 1} printable ASCII characters, or an array of ${size} numbers`, json)
      }
      for (let index = 0; index <= json.length; index++) {
        this.whole(at + index, 8, path, json, BigInt(index < json.length ? json.charCodeAt(index) : 0))
      }
      this.tails.push({ from: at + json.length + 1, to: at + size })
      return
    }
    if (!Array.isArray(json) || json.length !== size) {
      throw fails(path, `a string, or an array of ${size} numbers`, json)
    }
    json.forEach((element: Json, index) => {
      const where = `${path}[${index}]`
      this.whole(at + index, 8, where, element, integerOf(element, 8, signed, where, "a character's number"))
    })
  }

  private members(plan: StructPlan, at: number, path: string, json: Json): void {
    if (!isObject(json)) throw fails(path, "an object", json)
    const fields = new Map(plan.members.map((member) => [member.name, member]))
    for (const [name, value] of Object.entries(json)) {
      const field = fields.get(name)
      if (field === undefined) {
        const names = listOf(plan.members.map((member) => member.name))
        throw fails(path, `only members that its type has: ${names}`, name)
      }
      this.add(field.plan, at + field.at, path === "" ? name : `${path}.${name}`, value)
    }
  }

  private elements(plan: ArrayPlan, at: number, path: string, json: Json): void {
    const last: Json | undefined = Array.isArray(json) ? json.at(-1) : undefined
    const length = Array.isArray(json) ? json.length - (isMark(last, "$omitted") ? 1 : 0) : -1
    if (!Array.isArray(json) || length !== plan.count) throw fails(path, `an array of ${plan.count}`, json)
    for (let index = 0; index < length; index++) {
      this.add(plan.element, at + index * plan.stride, `${path}[${index}]`, json[index])
    }
  }

  /** Put all that was collected. What follows a string's end says least: it goes first. */
  settle(): void {
    const { bytes, said } = this
    for (const { from, to } of this.tails) {
      bytes.fill(0, from, to)
      said.fill(0xff, from, to)
    }
    const decided = new Uint8Array(bytes.length)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const loose = this.loose.sort((a, b) => a.rank - b.rank)
    for (const { holds, put, rank } of loose) {
      if (rank < 2 || said[put.at] === 0 || !holds(view)) this.set(put, undefined)
    }
    for (const put of this.exact) this.set(put, decided)
    for (const { holds, put } of loose) if (!holds(view)) throw disagrees(put)
  }

  private set(put: Put, decided: Uint8Array | undefined): void {
    const { at, bit, bits } = put
    const { bytes, said } = this
    let value = put.value << BigInt(bit)
    let mask = ((1n << BigInt(bits)) - 1n) << BigInt(bit)
    for (let index = at; mask > 0n; index++, mask >>= 8n, value >>= 8n) {
      const byteMask = Number(mask & 0xffn)
      const byte = Number(value & 0xffn)
      if (decided !== undefined) {
        if (((bytes[index] ^ byte) & byteMask & decided[index]) !== 0) throw disagrees(put)
        decided[index] |= byteMask
      }
      bytes[index] = (bytes[index] & ~byteMask) | byte
      said[index] |= byteMask
    }
  }

  /** The bytes that were said. */
  runs(): ReadonlyArray<ByteRun> {
    const runs: Array<ByteRun> = []
    for (let at = 0; at < this.said.length; at++) {
      if (this.said[at] === 0) continue
      let end = at + 1
      while (end < this.said.length && this.said[end] !== 0) end++
      runs.push({ at, length: end - at })
      at = end
    }
    return runs
  }
}

const disagrees = ({ json, path }: Put): EncodeError =>
  fails(path, "what the union's other members say of the same bytes", json)

const bitsAt = (view: DataView, at: number, bit: number, bits: number): bigint => {
  let value = 0n
  for (let index = Math.ceil((bit + bits) / 8) - 1; index >= 0; index--) {
    value = (value << 8n) | BigInt(view.getUint8(at + index))
  }
  return BigInt.asUintN(bits, value >> BigInt(bit))
}

/** An integer as JSON has it, checked against its width. A number that JSON has rounded is refused. */
const integerOf = (json: Json, bits: number, signed: boolean, path: string, what: string): bigint => {
  const least = signed ? -(1n << BigInt(bits - 1)) : 0n
  const most = (1n << BigInt(signed ? bits - 1 : bits)) - 1n
  const expected = `${what} from ${least} to ${most}`
  if (typeof json === "number" && !Number.isSafeInteger(json)) {
    throw fails(path, Number.isInteger(json) ? `${expected}, in quotes: JSON rounds larger numbers` : expected, json)
  }
  const isInteger = typeof json === "number" || (typeof json === "string" && /^(-?\d+|0x[0-9a-f]+)$/i.test(json))
  if (!isInteger) throw fails(path, expected, json)
  const value = BigInt(json)
  if (value < least || value > most) throw fails(path, expected, json)
  return value
}

const isObject = (json: Json | undefined): json is { readonly [key: string]: Json } =>
  typeof json === "object" && json !== null && !Array.isArray(json)

const isMark = (json: Json | undefined, mark: "$unsupported" | "$omitted"): boolean =>
  isObject(json) && Object.hasOwn(json, mark)

const listOf = (names: ReadonlyArray<string>): string =>
  names.length === 0 ? "(none)" : names.length > 12 ? `${names.slice(0, 12).join(", ")}, ...` : names.join(", ")

/** One character of a char array. */
const characterOf = ({ signed }: LeafPlan): ScalarPlan => ({
  kind: "scalar",
  form: "char",
  bit: 0,
  bits: 8,
  signed,
  names: new ValueNames([]),
  extent: 1,
  cost: 8,
  leaves: 1,
  parts: 1,
  height: 0
})

/** Follow a path from a plan: the part's plan, and where it is. */
const placeOf = (
  root: RenderPlan,
  path: string
): Either.Either<{ readonly plan: RenderPlan; readonly at: number }, EncodeError> => {
  let plan = root
  let at = 0
  let rest = path
  const wrong = (expected: string) =>
    Either.left(new EncodeError({ path: path.slice(0, path.length - rest.length), expected, given: rest }))
  while (rest !== "") {
    const index = /^\[(\d+)\](?:\.(?=[^.[]))?/.exec(rest)
    if (index !== null) {
      const number = Number(index[1])
      if (plan.kind !== "text" && plan.kind !== "array") return wrong("no index: it is not an array")
      const count: number = plan.kind === "array" ? plan.count + plan.omitted : plan.extent
      if (number >= count) return wrong(`an index below ${count}`)
      at += number * (plan.kind === "array" ? plan.stride : 1)
      plan = plan.kind === "array" ? plan.element : characterOf(plan)
      rest = rest.slice(index[0].length)
      continue
    }
    if (plan.kind !== "struct" && plan.kind !== "union") return wrong("no member: it is not a struct")
    // Names of a data section's variables may hold dots: the longest that fits.
    const follows = (name: string): boolean => rest.startsWith(name) && /^([.[]|$)/.test(rest.slice(name.length))
    const fitting = plan.members.filter((member) => follows(member.name))
    if (fitting.length === 0) return wrong(`one of ${listOf(plan.members.map((member) => member.name))}`)
    const field = fitting.reduce((best, member) => member.name.length > best.name.length ? member : best)
    at += field.at
    plan = field.plan
    rest = rest.slice(field.name.length).replace(/^\.(?=[^.[])/, "")
  }
  return Either.right({ plan, at })
}
