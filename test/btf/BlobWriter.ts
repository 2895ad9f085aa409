import { Kind } from "../../src/btf/BtfType.ts"

interface MemberSpec {
  readonly name: string
  readonly type: number
  readonly bits: number
  readonly width?: number
}

/** Assembles raw BTF for tests, right or wrong. Each method returns the new type's id. */
export class BlobWriter {
  private readonly records: Array<number> = []
  private readonly strings: Array<number>
  private readonly interned = new Map<string, number>()
  private nextId: number
  private readonly firstString: number

  /** `base` makes split BTF: what the base's `endId` and string section length are. */
  constructor(base?: { readonly endId: number; readonly strings: number }) {
    this.nextId = base?.endId ?? 1
    this.firstString = base?.strings ?? 0
    this.strings = base === undefined ? [0] : []
  }

  get stringLength(): number {
    return this.strings.length
  }

  /** Append a string, though it may be there. */
  string(text: string): number {
    const offset = this.firstString + this.strings.length
    this.strings.push(...Buffer.from(text), 0)
    return offset
  }

  /** The offset of a string, written once, as real writers do. */
  private name(text: string): number {
    const offset = text === "" ? 0 : this.interned.get(text) ?? this.string(text)
    this.interned.set(text, offset)
    return offset
  }

  type(
    kind: number,
    of: { name?: string | number; third?: number; vlen?: number; flag?: boolean; body?: Array<number> }
  ) {
    const { body = [], flag = false, name = "", third = 0, vlen = 0 } = of
    const info = ((flag ? 1 : 0) << 31 | kind << 24 | vlen) >>> 0 // kind of 7 bits, vlen of 24
    this.records.push(typeof name === "number" ? name : this.name(name), info, third)
    for (const word of body) this.records.push(word)
    return this.nextId++
  }

  int(
    name: string,
    size: number,
    how: { signed?: boolean; bool?: boolean; bits?: number; offset?: number } = {}
  ): number {
    const encoding = (how.signed === true ? 1 : 0) | (how.bool === true ? 4 : 0)
    return this.type(Kind.INT, {
      name,
      third: size,
      body: [encoding << 24 | (how.offset ?? 0) << 16 | (how.bits ?? size * 8)]
    })
  }

  ref(kind: number, type: number, name = "", flag = false): number {
    return this.type(kind, { name, third: type, flag })
  }

  array(type: number, count: number): number {
    return this.type(Kind.ARRAY, { body: [type, 0, count] })
  }

  struct(name: string, size: number, members: ReadonlyArray<MemberSpec>, kind: number = Kind.STRUCT): number {
    const flag = members.some(({ width }) => width !== undefined)
    const body = members.flatMap(({ bits, name, type, width = 0 }) => [this.name(name), type, width << 24 | bits])
    return this.type(kind, { name, third: size, vlen: members.length, flag, body })
  }

  enum32(name: string, values: ReadonlyArray<readonly [string, number]>, flag = false, size = 4): number {
    const body = values.flatMap(([name, value]) => [this.name(name), value])
    return this.type(Kind.ENUM, { name, third: size, vlen: values.length, flag, body })
  }

  enum64(name: string, values: ReadonlyArray<readonly [string, bigint]>, flag = false): number {
    const body = values.flatMap(([name, value]) => [
      this.name(name),
      Number(BigInt.asUintN(32, value)),
      Number(BigInt.asUintN(32, value >> 32n))
    ])
    return this.type(Kind.ENUM64, { name, third: 8, vlen: values.length, flag, body })
  }

  /**
   * The blob, with a header of `header` bytes; with a layout section, if the sizes of each kind are given: bytes that come
   * once, bytes of an element.
   */
  bytes(header = 24, layouts: ReadonlyArray<readonly [number, number]> = []): Uint8Array {
    const types = Buffer.alloc(this.records.length * 4)
    this.records.forEach((word, index) => types.writeUInt32LE(word >>> 0, index * 4))
    const head = Buffer.alloc(header)
    const layout = Buffer.from(layouts.flatMap(([fixed, each]) => [fixed, each, 0, 0]))
    if (layouts.length > 0) {
      head.writeUInt32LE(types.length, 24)
      head.writeUInt32LE(layout.length, 28)
    }
    head.writeUInt16LE(0xeb9f, 0)
    head[2] = 1
    head.writeUInt32LE(header, 4)
    head.writeUInt32LE(types.length, 12)
    head.writeUInt32LE(types.length + layout.length, 16)
    head.writeUInt32LE(this.strings.length, 20)
    return new Uint8Array(Buffer.concat([head, types, layout, Buffer.from(this.strings)]))
  }
}
