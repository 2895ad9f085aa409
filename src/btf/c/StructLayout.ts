import type { Btf } from "../Btf.ts"
import type { EnumType, Member, StructType } from "../BtfType.ts"
import { Budget, type Declaration, declarationOf } from "./CDeclaration.ts"

/** Structs without names within one another. */
const DEPTH_LIMIT = 32

/**
 * One member, and the unused space before it.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemberLayout {
  readonly name: string
  readonly typeId: number
  readonly declaration: Declaration
  /** In bytes, from the start of the struct that was asked for; of a bit-field, where the integer that holds it begins. */
  readonly offset: number
  /** In bytes; of a bit-field, of the integer that holds it. */
  readonly size: number
  /** Of a bit-field: where it begins in its integer, and how wide it is. */
  readonly bits: { readonly offset: number; readonly size: number } | undefined
  readonly hole: Hole
  /** Bytes at the end of the struct that this member is, which nothing uses. */
  readonly padding: number
  /** Of a member whose struct, union or enum has no name. Behind a pointer, its offsets count from 0. */
  readonly body: StructLayout | EnumType | undefined
}

/**
 * Space that no member uses: what is left of a bit-field's integer, then whole bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface Hole {
  readonly bits: number
  readonly bytes: number
}

/**
 * How a struct or union is made up.
 *
 * @since 0.1.0
 * @category models
 */
export interface StructLayout {
  readonly type: StructType
  readonly members: ReadonlyArray<MemberLayout>
  /** Unused space at the end. */
  readonly padding: Hole
  /** Whether members were left out: only of blobs that make no sense. */
  readonly cut: boolean
}

/**
 * Take a struct or union amember. Never fails: what is beyond any sense is cut.
 *
 * @since 0.1.0
 * @category reading
 */
export const structLayout = (btf: Btf, type: StructType, budget = Budget.ofType()): StructLayout =>
  new LayoutBuilder(btf, budget).struct(type, 0, 0)

/**
 * Totals of a struct's members, holes and padding, as `pahole` counts them. In a union, and where members overlap, there are no holes.
 *
 * @since 0.1.0
 * @category reading
 */
export const structTotals = ({ padding, members }: StructLayout) => {
  const sums = {
    members: members.length,
    memberBytes: 0,
    bitFieldBits: 0,
    holes: 0,
    holeBytes: 0,
    bitHoles: 0,
    bitHoleBits: 0,
    padding: padding.bytes,
    bitPadding: padding.bits,
    paddings: 0,
    paddingBytes: 0
  }
  for (const member of members) {
    if (member.bits === undefined) sums.memberBytes += member.size
    else sums.bitFieldBits += member.bits.size
    if (member.hole.bytes > 0) sums.holes++
    if (member.hole.bits > 0) sums.bitHoles++
    if (member.padding > 0) sums.paddings++
    sums.holeBytes += member.hole.bytes
    sums.bitHoleBits += member.hole.bits
    sums.paddingBytes += member.padding
  }
  return sums
}

const NOTHING: Hole = { bits: 0, bytes: 0 }

class LayoutBuilder {
  private readonly paddings = new Map<number, number>()

  constructor(private readonly btf: Btf, private readonly budget: Budget) {}

  struct(type: StructType, base: number, depth: number): StructLayout {
    const members: Array<MemberLayout> = []
    const holes = new HoleFinder()
    for (const member of type.members) {
      if (!this.budget.spend(128 + member.name.length)) break
      const place = this.place(member)
      const hole = type.kind === "UNION" ? NOTHING : holes.before(place)
      const declaration = this.declaration(member, type.kind === "STRUCT" && members.length === type.members.length - 1)
      const pointed = declaration.declarator.includes("*")
      const target = this.btf.type(this.btf.peel(member.type))
      members.push({
        name: member.name,
        typeId: member.type,
        declaration,
        offset: base + place.offset,
        size: place.size,
        bits: place.bits,
        hole,
        padding: type.kind === "STRUCT" && target?.kind === "STRUCT" ? this.paddingOf(target) : 0,
        body: declaration.body === undefined
          ? undefined
          : this.body(declaration.body, pointed ? 0 : base + place.offset, depth + 1)
      })
    }
    const padding = type.kind === "UNION" ? NOTHING : holes.atEnd(type.size)
    return { type, members, padding, cut: members.length < type.members.length }
  }

  /** An array without elements that ends a struct is one of any length. */
  private declaration({ name, type: typeId }: Member, last: boolean): Declaration {
    const type = this.btf.type(typeId)
    return last && type?.kind === "ARRAY" && type.count === 0
      ? declarationOf(this.btf, type.type, `${name}[]`, this.budget)
      : declarationOf(this.btf, typeId, name, this.budget)
  }

  private body(typeId: number, base: number, depth: number): MemberLayout["body"] {
    const type = this.btf.type(typeId)
    if (type?.kind === "ENUM" || type?.kind === "ENUM64") {
      return this.budget.spend(type.values.length * 64) ? type : undefined
    }
    if (type?.kind !== "STRUCT" && type?.kind !== "UNION") return undefined
    return depth > DEPTH_LIMIT
      ? { type, members: [], padding: NOTHING, cut: true }
      : this.struct(type, base, depth)
  }

  private paddingOf(type: StructType): number {
    let padding = this.paddings.get(type.id)
    if (padding === undefined) {
      const holes = new HoleFinder()
      for (const member of type.members) holes.before(this.place(member))
      padding = holes.atEnd(type.size).bytes
      this.paddings.set(type.id, padding)
    }
    return padding
  }

  private place({ bitOffset, bitSize, type }: Member): BitRange {
    const size = this.btf.sizeOf(type) ?? 0
    const int = bitSize === 0 ? this.btf.type(this.btf.peel(type)) : undefined
    // Old blobs say in the INT itself that it is a bit-field.
    const old = int?.kind === "INT" && int.bits !== int.size * 8 ? int : undefined
    const width = old?.bits ?? bitSize
    const at = bitOffset + (old?.bitOffset ?? 0)
    if (width === 0) return { at, width: size * 8, offset: Math.floor(at / 8), size, bits: undefined }
    const unit = Math.max(1, size)
    const aligned = Math.floor(at / (unit * 8)) * unit
    // A packed one may straddle two integers.
    const offset = at + width <= (aligned + unit) * 8 ? aligned : Math.floor(at / 8)
    return { at, width, offset, size: unit, bits: { offset: at - offset * 8, size: width } }
  }
}

interface BitRange {
  /** The first bit that it uses, from the start of its own struct, and how many. */
  readonly at: number
  readonly width: number
  readonly offset: number
  readonly size: number
  readonly bits: MemberLayout["bits"]
}

/** Finds the space between members that are given in their order. */
class HoleFinder {
  /** The first bit that no member has used so far, and where the integer of the last bit-field ends. */
  private end = 0
  private unitEnd = 0

  before({ at, bits, offset, size, width }: BitRange): Hole {
    const hole = this.upTo(at, bits === undefined ? at : offset * 8)
    this.end = Math.max(this.end, at + width)
    this.unitEnd = bits === undefined ? this.end : Math.max(this.end, this.unitEnd, (offset + size) * 8)
    return hole
  }

  atEnd(size: number): Hole {
    return this.upTo(size * 8, size * 8)
  }

  /** Bits are what is left of the last bit-field's integer, and what the next one's, from `unit`, has before `at`. */
  private upTo(at: number, unit: number): Hole {
    const space = Math.max(0, at - this.end)
    const before = Math.min(space, this.unitEnd - this.end)
    const after = Math.min(space - before, Math.max(0, at - Math.max(unit, this.unitEnd)))
    const between = space - before - after
    return { bits: before + after + between % 8, bytes: Math.floor(between / 8) }
  }
}
