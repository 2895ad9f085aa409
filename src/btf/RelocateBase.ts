import * as Either from "effect/Either"
import { FormatError, parsing } from "../core/FormatError.ts"
import { Btf } from "./Btf.ts"
import { type BtfType, Kind, kindOfInfo, vlenOfInfo } from "./BtfType.ts"

/** `struct btf_type`, and by kind where the words that are ids and names lie in its elements, and their size. */
interface WordPlaces {
  /** Whether the third word is an id. */
  readonly refers: boolean
  readonly ids: ReadonlyArray<number>
  readonly names: ReadonlyArray<number>
  /** Bytes of an element; there are `vlen` of them, of an array one. */
  readonly step: number
}

const REFERENCE: WordPlaces = { refers: true, ids: [], names: [], step: 0 }
const PLAIN: WordPlaces = { refers: false, ids: [], names: [], step: 0 }
const MEMBERS: WordPlaces = { refers: false, ids: [4], names: [0], step: 12 }

/** @see include/uapi/linux/btf.h, v7.3 */
const PLACES: ReadonlyMap<number, WordPlaces> = new Map([
  [Kind.INT, PLAIN],
  [Kind.PTR, REFERENCE],
  [Kind.ARRAY, { refers: false, ids: [0, 4], names: [], step: 12 }],
  [Kind.STRUCT, MEMBERS],
  [Kind.UNION, MEMBERS],
  [Kind.ENUM, { refers: false, ids: [], names: [0], step: 8 }],
  [Kind.FWD, PLAIN],
  [Kind.TYPEDEF, REFERENCE],
  [Kind.VOLATILE, REFERENCE],
  [Kind.CONST, REFERENCE],
  [Kind.RESTRICT, REFERENCE],
  [Kind.FUNC, REFERENCE],
  [Kind.FUNC_PROTO, { refers: true, ids: [4], names: [0], step: 8 }],
  [Kind.VAR, REFERENCE],
  [Kind.DATASEC, { refers: false, ids: [0], names: [], step: 12 }],
  [Kind.FLOAT, PLAIN],
  [Kind.DECL_TAG, REFERENCE],
  [Kind.TYPE_TAG, REFERENCE],
  [Kind.ENUM64, { refers: false, ids: [], names: [0], step: 12 }]
])

/**
 * Split BTF of a module that was built outside of its kernel's tree: it continues a distilled base (section `.BTF.base`),
 * which names the types of the kernel that the module uses. Here it is made to continue a kernel's real BTF: each type of
 * the distilled base is found there by name, kind and size, and all ids and names are rewritten.
 * @param split the module's `.BTF`; it is not changed
 * @param distilled its `.BTF.base`, parsed
 * @returns the rewritten `.BTF`; a `FormatError` if a type has no counterpart in `base`, or several
 * @see tools/lib/bpf/btf_relocate.c, v6.11 to v7.3; "libbpf: Split BTF relocation" (v6.11)
 */
export const relocateBase = (
  split: Uint8Array,
  distilled: Btf,
  base: Btf,
  subject: string
): Either.Either<Uint8Array, FormatError> =>
  Either.flatMap(Btf.parse(split, { subject, base: distilled }), (module) =>
    parsing(() => {
      const map = counterparts(module, distilled, base)
      const bytes = split.slice()
      const view = new DataView(bytes.buffer)
      const idAt = (at: number): void => {
        const id = view.getUint32(at, true)
        view.setUint32(at, id < distilled.endId ? map.ids[id] : id - distilled.endId + base.endId, true)
      }
      const nameAt = (at: number): void => {
        const name = view.getUint32(at, true)
        if (name === 0) return
        const moved = name < distilled.endString ? map.names.get(name) : name - distilled.endString + base.endString
        if (moved === undefined) throw broken(subject, at, `a name that ${base.subject} has too`)
        view.setUint32(at, moved, true)
      }
      for (let id = module.firstId; id < module.endId; id++) {
        const at = module.recordAt(id)
        const info = view.getUint32(at + 4, true)
        const kind = kindOfInfo(info)
        const places = PLACES.get(kind)
        if (places === undefined) throw broken(subject, at, `a type of kind 1 to ${Kind.ENUM64}, not ${kind}`)
        nameAt(at)
        if (places.refers) idAt(at + 8)
        const count = kind === Kind.ARRAY ? 1 : vlenOfInfo(info)
        if (places.step === 0) continue
        for (let element = at + 12, left = count; left > 0; element += places.step, left--) {
          for (const offset of places.ids) idAt(element + offset)
          for (const offset of places.names) nameAt(element + offset)
        }
      }
      return bytes
    }))

const broken = (subject: string, offset: number, expected: string): FormatError =>
  new FormatError({ format: "BTF", subject, offset, expected })

interface Counterparts {
  /** By id of the distilled base. */
  readonly ids: Uint32Array
  /** By offset of a name in the distilled base. */
  readonly names: ReadonlyMap<number, number>
}

const counterparts = (module: Btf, distilled: Btf, base: Btf): Counterparts => {
  const types = Array.from({ length: distilled.endId - 1 }, (_, index) => {
    const type = distilled.type(index + 1)
    if (type !== undefined && isDistilled(type)) return type
    const expected = "a named INT, FLOAT, ENUM, STRUCT, UNION or FWD in a distilled base"
    throw broken(distilled.subject, distilled.recordAt(index + 1), `${expected}, not ${type?.kind ?? "nothing"}`)
  })
  const index = indexBase(base, new Set(types.map(({ name }) => name)))
  const embedded = embeddedIds(module, distilled)
  const ids = new Uint32Array(distilled.endId)
  const names = new Map<number, number>()
  for (const type of types) {
    const byName = index.get(keyOf(type, false))
    const found = embedded.has(type.id) || (byName?.count ?? 0) > 1 ? index.get(keyOf(type, true)) : byName
    if (found?.count !== 1) {
      const title = `${type.kind} ${type.name}${"size" in type ? ` of ${type.size} bytes` : ""}`
      const expected = found === undefined
        ? `${title} in ${base.subject}: was the module built for another kernel?`
        : `one ${title} in ${base.subject}, not ${found.count}`
      throw broken(distilled.subject, distilled.recordAt(type.id), expected)
    }
    ids[type.id] = found.id
    names.set(distilled.nameOffset(type.id), base.nameOffset(found.id))
  }
  return { ids, names }
}

type Distilled = Extract<BtfType, { readonly kind: "INT" | "FLOAT" | "ENUM" | "ENUM64" | "STRUCT" | "UNION" | "FWD" }>

/** An ENUM64 is distilled to an ENUM without values. */
const isDistilled = (type: BtfType): type is Distilled =>
  (type.kind === "INT" || type.kind === "FLOAT" || type.kind === "ENUM" || type.kind === "STRUCT"
    || type.kind === "UNION" || type.kind === "FWD") && type.name !== ""

/**
 * The key that two matching types share. Structs and unions are found by their name alone, unless the module holds one,
 * or several have the name: then they are `sized`.
 */
const keyOf = (type: Distilled, sized: boolean): string => {
  switch (type.kind) {
    case "FWD":
      return `${type.of} ${type.name}`
    case "INT":
      return `INT ${type.size} ${type.signed} ${type.bool} ${type.char} ${type.name}`
    case "FLOAT":
      return `FLOAT ${type.size} ${type.name}`
    case "ENUM":
    case "ENUM64":
      return `ENUM ${type.size} ${type.name}`
    default:
      return `COMPOSITE ${sized ? type.size : ""} ${type.name}`
  }
}

/** By key the last type of the base that has it, and how many have it; of types with these names. */
const indexBase = (
  base: Btf,
  names: ReadonlySet<string>
): ReadonlyMap<string, { readonly id: number; readonly count: number }> => {
  const index = new Map<string, { readonly id: number; readonly count: number }>()
  const add = (key: string, id: number) => index.set(key, { id, count: (index.get(key)?.count ?? 0) + 1 })
  for (let id = 1; id < base.endId; id++) {
    if (!names.has(base.nameOf(id))) continue
    const type = base.type(id)
    if (type === undefined || !(type.kind === "ENUM64" || isDistilled(type))) continue
    add(keyOf(type, false), id)
    if (type.kind !== "STRUCT" && type.kind !== "UNION") continue
    add(keyOf(type, true), id)
    add(`${type.kind.toLowerCase()} ${type.name}`, id) // what a FWD declares
  }
  return index
}

/** Modifiers and arrays in a row, at most. */
const CHAIN_LIMIT = 64

/** Structs of the distilled base that a struct of the module holds as a member, not behind a pointer. */
const embeddedIds = (module: Btf, distilled: Btf): ReadonlySet<number> => {
  const found = new Set<number>()
  for (let id = module.firstId; id < module.endId; id++) {
    const type = module.type(id)
    if (type?.kind !== "STRUCT" && type?.kind !== "UNION") continue
    for (const member of type.members) {
      let target = module.type(module.peel(member.type))
      for (let hops = 0; target?.kind === "ARRAY" && hops < CHAIN_LIMIT; hops++) {
        target = module.type(module.peel(target.type))
      }
      if (target !== undefined && target.id < distilled.endId) found.add(target.id)
    }
  }
  return found
}
