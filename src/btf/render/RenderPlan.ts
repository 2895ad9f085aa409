import type { Btf } from "../Btf.ts"
import type { DataSectionType, EnumType, StructType } from "../BtfType.ts"
import type { RenderedValue } from "./RenderedValue.ts"
import { ValueNames } from "./ValueNames.ts"

/** Structs and arrays in one another. */
const HEIGHT_LIMIT = 32
/** Limit of the work to render one value, roughly the bytes of its JSON or text; the rest is left out, with a note. */
const COST_LIMIT = 1 << 26
/** Elements shown of an array whose elements have no bytes. */
const EMPTY_LIMIT = 64
/** Parts of one value, of arrays the first 64 elements: a tree takes some 150 bytes for each. A 7.3 kernel's largest has 18,541. */
const PART_LIMIT = 1 << 19
/**
 * Members of one struct, those of its nameless structs among them, which double at each level. A 7.3 kernel's BTF has at
 * most 424 (`.data..percpu`; of structs, 276).
 */
const MEMBER_LIMIT = 1 << 12
/** All plans of one BTF and what is made of them, in bytes of memory or so. All types of a 7.3 kernel take a ninth. */
const MEMORY_LIMIT = 1 << 28
/** Bytes that a step of a `JsonPlan` takes, and the most steps that one member makes (`UNROLL`). */
const STEP_MEMORY = 128
const MOST_STEPS = 24

/** The fields of every plan. */
interface PlanCommon {
  /** Bytes it reads, from its own start. */
  readonly extent: number
  /** Work to render it: at least the bytes of its JSON, of an enum also those of all its flags, and 8 for each part. */
  readonly cost: number
  /** Plans below it that hold no others. */
  readonly leaves: number
  /** Structs, arrays and leaves in it, itself among them; of an array those of 64 elements. */
  readonly parts: number
  /** Levels of structs and arrays. */
  readonly height: number
}
/** An integer of up to 128 bits. */
export interface ScalarPlan extends PlanCommon {
  readonly kind: "scalar"
  readonly form: "int" | "char" | "bool" | "enum"
  /** Where its lowest bit is, from its start. */
  readonly bit: number
  readonly bits: number
  readonly signed: boolean
  /** Of an enum. */
  readonly names: ValueNames
}
/** A pointer, a float of 4 or 8 bytes, untyped bytes, a char array. */
export interface LeafPlan extends PlanCommon {
  readonly kind: "pointer" | "float" | "bytes" | "text"
  readonly signed: boolean
}
export interface StructPlan extends PlanCommon {
  readonly kind: "struct" | "union"
  readonly members: ReadonlyArray<FieldPlan>
}
export interface FieldPlan {
  readonly name: string
  /** In bytes, from the start of the struct. */
  readonly at: number
  readonly plan: RenderPlan
}
export interface ArrayPlan extends PlanCommon {
  readonly kind: "array"
  readonly element: RenderPlan
  /** Bytes from an element to the next. */
  readonly stride: number
  readonly count: number
  /** Elements after `count` that exceed the limits. */
  readonly omitted: number
}
interface UnsupportedPlan extends PlanCommon {
  readonly kind: "unsupported"
  readonly reason: string
}
/** `extent` bytes shown as something else: `render` gets their place, and the most elements of an array to show. */
export interface DerivedPlan extends PlanCommon {
  readonly kind: "derived"
  readonly render: (view: DataView, at: number, most: number) => RenderedValue
}

/** Where a type is used: for member `index` of struct `owner`, or (-1) for the variable `owner`. So do DECL_TAGs count. */
export interface Use {
  readonly owner: number
  readonly index: number
}
/** The plan that replaces the one of a (peeled) type; undefined: the type's own. */
export type Special = (typeId: number, use: Use | undefined) => DerivedPlan | undefined

/**
 * A type resolved for rendering: modifiers peeled, anonymous members flattened, offsets summed, names at hand; and
 * bounded, whatever the BTF says: at most 32 levels high, at most 64 Mi of work.
 */
export type RenderPlan = ScalarPlan | LeafPlan | StructPlan | ArrayPlan | UnsupportedPlan | DerivedPlan

/** The plan of a type. Built once for each type of a `Btf`; never fails. */
export const renderPlan = (btf: Btf, typeId: number): RenderPlan => {
  let builder = builders.get(btf)
  if (builder === undefined) {
    builder = new Builder(btf)
    builders.set(btf, builder)
  }
  return builder.build(typeId, 0)
}

/** As `renderPlan`, where `special` has a say. Each call gives a builder of its own, which keeps what it built. */
export const renderPlansWith = (btf: Btf, special: Special): (typeId: number) => RenderPlan => {
  const builder = new Builder(btf, special)
  return (typeId) => builder.build(typeId, 0)
}

/** `size` bytes that `render` describes in at most `cost` bytes of JSON. */
export const derivedPlan = (size: number, cost: number, render: DerivedPlan["render"]): DerivedPlan => ({
  kind: "derived",
  render,
  extent: size,
  cost,
  leaves: 1,
  parts: 1,
  height: 0
})

/** `size` bytes that have no type. */
export const bytesPlan = (size: number): LeafPlan => leaf("bytes", size)

const leaf = (kind: LeafPlan["kind"], size: number, signed = false): LeafPlan => ({
  kind,
  signed,
  extent: size,
  // `-128,` for a char at worst; two hex digits for a byte; "0x" and 16 digits; the longest float
  cost: kind === "text" ? 5 * size + 8 : kind === "bytes" ? 2 * size + 8 : 32,
  leaves: 1,
  parts: 1,
  height: 0
})

const unsupported = (reason: string): UnsupportedPlan => ({
  kind: "unsupported",
  reason,
  extent: 0,
  cost: reason.length * 6 + 24,
  leaves: 1,
  parts: 1,
  height: 0
})

const TOO_DEEP = unsupported(`nested deeper than ${HEIGHT_LIMIT} levels`)
const TOO_MUCH = unsupported("more than one value can show")
const TOO_BIG = unsupported("the BTF describes more than this reader keeps")
const NO_NAMES = new ValueNames([])

class Builder {
  private readonly known = new Map<number, RenderPlan>()
  private memory = 0

  constructor(private readonly btf: Btf, private readonly special?: Special) {}

  build(typeId: number, depth: number, use?: Use): RenderPlan {
    const id = this.btf.peel(typeId)
    const special = this.special?.(id, use)
    if (special !== undefined) return special
    const type = this.special === undefined ? undefined : this.btf.type(id)
    // Not remembered: its elements may be special in this place alone.
    if (type?.kind === "ARRAY" && depth <= HEIGHT_LIMIT) return this.list(type.type, type.count, depth, use)
    const done = this.known.get(id)
    if (done !== undefined) return done
    // Not remembered: from another root this type may be fine.
    if (depth > HEIGHT_LIMIT) return TOO_DEEP
    this.known.set(id, unsupported("a type that contains itself"))
    const plan = this.construct(id, depth)
    this.known.set(id, plan)
    return plan
  }

  private construct(id: number, depth: number): RenderPlan {
    const type = this.btf.type(id)
    switch (type?.kind) {
      case undefined:
        return unsupported(`type ${id} does not exist`)
      case "INT":
        return scalar({
          form: type.bool ? "bool" : this.isChar(id) ? "char" : "int",
          bit: type.bitOffset,
          bits: type.bits,
          signed: type.signed,
          names: NO_NAMES
        })
      case "ENUM":
      case "ENUM64":
        return this.enum(type)
      case "PTR":
        return leaf("pointer", 8)
      case "FLOAT":
        return leaf(type.size === 4 || type.size === 8 ? "float" : "bytes", Math.min(type.size, COST_LIMIT / 4))
      case "ARRAY":
        return this.list(type.type, type.count, depth)
      case "STRUCT":
      case "UNION":
        return this.struct(type, depth)
      case "DATASEC":
        return this.section(type, depth)
      case "VAR":
        return this.build(type.type, depth + 1, { owner: id, index: -1 })
      case "FWD":
        return unsupported(`${type.of} ${type.name} is only declared here`)
      case "VOID":
        return unsupported("void has no value")
      case "FUNC":
      case "FUNC_PROTO":
        return unsupported("a function has no value")
      case "DECL_TAG":
        return unsupported("a tag has no value")
      case "UNKNOWN":
        return unsupported(`a type of kind ${type.number}, which this reader does not know`)
      default:
        return unsupported("modifiers without end")
    }
  }

  /** `char` itself, by the name that clang and pahole give it (few writers set the flag): `s8`, `u8` hold numbers. */
  private isChar(id: number): boolean {
    const type = this.btf.type(id)
    if (type?.kind !== "INT" || type.bits !== 8 || type.bitOffset !== 0) return false
    return type.char || type.name === "char"
  }

  private enum({ signed, size, values }: EnumType): RenderPlan {
    this.memory += ValueNames.memoryOf(values)
    if (this.memory > MEMORY_LIMIT) return TOO_BIG
    return scalar({ form: "enum", bit: 0, bits: size * 8, signed, names: new ValueNames(values) })
  }

  private list(typeId: number, count: number, depth: number, use?: Use): RenderPlan {
    const stride = this.btf.sizeOf(typeId)
    const element = this.build(typeId, depth + 1, use)
    if (element.kind === "unsupported") return element
    if (stride === undefined || stride * count >= 2 ** 32) return unsupported("an array of 4 GiB or more")
    if (element.height >= HEIGHT_LIMIT) return TOO_DEEP
    if (element.kind === "scalar" && element.form === "char" && count > 0 && count * 5 < COST_LIMIT) {
      return leaf("text", count, element.signed)
    }
    const most = stride === 0 ? EMPTY_LIMIT : Math.floor(COST_LIMIT / (element.cost + 1))
    const shown = Math.min(
      count,
      most,
      element.parts > PART_LIMIT / 64 ? Math.floor(PART_LIMIT / element.parts) : count
    )
    return {
      kind: "array",
      element,
      stride,
      count: shown,
      omitted: count - shown,
      extent: shown === 0 ? 0 : (shown - 1) * stride + element.extent,
      cost: shown * (element.cost + 1) + 32,
      leaves: shown * element.leaves,
      parts: 1 + Math.min(shown, 64) * element.parts,
      height: element.height + 1
    }
  }

  private struct(type: StructType, depth: number): RenderPlan {
    const members = new Members()
    for (const [index, member] of type.members.entries()) {
      const at = Math.floor(member.bitOffset / 8)
      const built = this.build(member.type, depth + 1, { owner: type.id, index })
      const plan = this.member(built, member.bitOffset % 8, member.bitSize)
      if (member.name !== "") members.add(member.name, at, plan)
      else if (plan.kind === "struct" || plan.kind === "union") {
        for (const inner of plan.members) members.add(inner.name, at + inner.at, inner.plan)
      } else if (plan.kind === "unsupported") members.add("(anonymous)", at, plan)
      // Other nameless members are padding.
      if (this.memory + members.memory > MEMORY_LIMIT || members.count > MEMBER_LIMIT) return this.tooBig(members)
    }
    this.memory += members.memory
    return members.struct(type.kind === "UNION" ? "union" : "struct", type.size)
  }

  /** A member `bit` bits into its first byte, of `width` bits if it is a bit-field. */
  private member(plan: RenderPlan, bit: number, width: number): RenderPlan {
    if (bit === 0 && width === 0) return plan
    if (plan.kind === "scalar") {
      const bits = width === 0 ? plan.bits : width
      const signed = plan.signed ? undefined : plan.names.signedIn(bits)
      return scalar({
        // Only a whole byte is a character.
        form: plan.form === "char" && bits !== 8 ? "int" : plan.form,
        bit: plan.bit + bit,
        bits,
        signed: plan.signed || signed !== undefined,
        names: signed ?? plan.names
      })
    }
    return plan.kind === "unsupported" ? plan : unsupported("a bit-field that is not an integer")
  }

  /** Give up on a plan that is too big. Its memory still counts: otherwise each type would be tried at full cost. */
  private tooBig({ memory }: Members): RenderPlan {
    this.memory += memory
    return TOO_BIG
  }

  private section(type: DataSectionType, depth: number): RenderPlan {
    const members = new Members()
    for (const { offset, type: id } of type.variables) {
      members.add(this.btf.nameOf(id), offset, this.build(id, depth + 1))
      if (this.memory + members.memory > MEMORY_LIMIT || members.count > MEMBER_LIMIT) return this.tooBig(members)
    }
    this.memory += members.memory
    return members.struct("struct", type.size)
  }
}

const builders = new WeakMap<Btf, Builder>()

const scalar = (of: Pick<ScalarPlan, "form" | "bit" | "bits" | "signed" | "names">): RenderPlan => {
  if (of.bits < 1 || of.bits > 128) return unsupported(`an integer of ${of.bits} bits`)
  return {
    kind: "scalar",
    form: of.form,
    bit: of.bit,
    bits: of.bits,
    signed: of.signed,
    names: of.names,
    extent: Math.ceil((of.bit + of.bits) / 8),
    cost: Math.max(of.bits <= 16 ? 8 : of.bits <= 64 ? 24 : 48, of.names.longest * 6 + 2, of.names.flagsWidth),
    leaves: 1,
    parts: 1,
    height: 0
  }
}

/** The members of one struct, with the sums that bound it. */
class Members {
  memory = 0
  get count(): number {
    return this.fields.length
  }
  private readonly fields: Array<FieldPlan> = []
  private readonly names = new Set<string>()
  /** The number that the last member of a name and offset got. */
  private readonly copies = new Map<string, number>()
  private extent = 0
  private cost = 8
  private leaves = 0
  private parts = 1
  private height = 0

  /**
   * Static variables of two linked files may have one name: the second is called `name@offset`, and where a BTF has that
   * twice too `name@offset#2`, so that none hides another. A name that begins with `$` gets another one: `$truncated` and its
   * like are our own marks.
   */
  add(name: string, at: number, plan: RenderPlan): void {
    const label = name.startsWith("$") ? `$${name}` : name
    const key = this.unused(label, at)
    this.names.add(key)
    const labelled = key.length * 6 + 4
    const room = COST_LIMIT - this.cost - labelled
    const kept = plan.height >= HEIGHT_LIMIT
      ? TOO_DEEP
      : plan.cost > room || this.parts + plan.parts > PART_LIMIT
      ? TOO_MUCH
      : plan
    this.fields.push({ name: key, at, plan: kept })
    this.memory += 64 + key.length + STEP_MEMORY * (kept.leaves <= MOST_STEPS ? kept.leaves : 1)
    this.extent = Math.max(this.extent, at + kept.extent)
    this.cost += labelled + kept.cost
    this.leaves += kept.leaves
    this.parts += kept.parts
    this.height = Math.max(this.height, kept.height)
  }

  private unused(label: string, at: number): string {
    if (!this.names.has(label)) return label
    const placed = `${label}@${at}`
    let key = placed
    let copy = this.copies.get(placed) ?? 1
    while (this.names.has(key)) key = `${placed}#${++copy}`
    this.copies.set(placed, copy)
    return key
  }

  /** With the padding that its size includes. */
  struct(kind: StructPlan["kind"], size: number): StructPlan {
    const { cost, extent, fields, height, leaves, parts } = this
    const whole = Math.max(extent, size)
    return { kind, members: fields, extent: whole, cost, leaves: leaves + 1, parts, height: height + 1 }
  }
}
