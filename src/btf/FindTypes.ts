import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import type { Btf } from "./Btf.ts"
import type { BtfType } from "./BtfType.ts"

/**
 * A name that no type has.
 *
 * @since 0.1.0
 * @category errors
 */
export class TypeNotFound extends Schema.TaggedError<TypeNotFound>("ktstr/TypeNotFound")("TypeNotFound", {
  subject: Schema.String,
  query: Schema.String,
  /** Names that are like it, the closest first. */
  close: Schema.Array(Schema.String)
}) {
  override get message() {
    const { close, query, subject } = this
    const hint = close.length === 0 ? "is it misspelt, or was this built without it?" : `there is ${close.join(", ")}`
    return `${subject}: no type "${query}"; ${hint}`
  }
}

/** Names as C writes them, `struct rq`, mean types of that sort; others whatever has the name. */
const KEYWORDS: ReadonlyMap<string, ReadonlyArray<BtfType["kind"]>> = new Map([
  ["struct", ["STRUCT", "FWD"]],
  ["union", ["UNION", "FWD"]],
  ["enum", ["ENUM", "ENUM64"]],
  ["typedef", ["TYPEDEF"]]
])
/** These have names, but are about another type. */
const TAGS: ReadonlyArray<string> = ["DECL_TAG", "TYPE_TAG"]

/**
 * The types of a name, ascending; there may be several. The name may say of what sort: `struct rq`, `union thread_union`,
 * `enum pid_type`, `typedef pid_t`. A mere declaration counts only where there is no definition.
 *
 * @since 0.1.0
 * @category reading
 */
export const findTypes = (btf: Btf, query: string): Either.Either<ReadonlyArray<number>, TypeNotFound> => {
  const { keyword, kinds, name } = parse(query)
  const found = btf.idsByName(name).filter((id) => {
    const type = btf.type(id)
    if (type === undefined || TAGS.includes(type.kind)) return false
    return kinds === undefined || kinds.includes(type.kind) && (type.kind !== "FWD" || type.of === keyword)
  })
  const defined = found.filter((id) => btf.type(id)?.kind !== "FWD")
  if (found.length > 0) return Either.right(defined.length > 0 ? defined : found)
  return Either.left(new TypeNotFound({ subject: btf.subject, query, close: closeNames(btf, name) }))
}

const parse = (query: string) => {
  const words = query.trim().split(/\s+/)
  const kinds = words.length === 2 ? KEYWORDS.get(words[0]) : undefined
  return kinds === undefined
    ? { keyword: undefined, kinds, name: words.join(" ") }
    : { keyword: words[0], kinds, name: words[1] }
}

/** How many names are suggested, and how long a name is looked for at all. */
const MOST = 5
const LONGEST = 64
/** Pairs of letters that are compared, at most: those of a kernel take a quarter. */
const STEP_LIMIT = 1 << 26

/** The names nearest to one, of any sort: by the letters that would have to change, a third of them at most; then those that hold it. */
const closeNames = (btf: Btf, name: string): ReadonlyArray<string> => {
  if (name === "" || name.length > LONGEST) return []
  const wanted = name.toLowerCase()
  const most = wanted.length < 4 ? 1 : Math.max(2, wanted.length / 3)
  const ranks = new Map<string, number>()
  let steps = 0
  for (let id = 1; id < btf.endId && steps < STEP_LIMIT; id++) {
    const other = btf.nameOf(id).toLowerCase()
    if (other === "") continue
    const isNear = Math.abs(other.length - wanted.length) <= most
    if (isNear) steps += wanted.length * other.length
    const distance = isNear ? editDistance(wanted, other) : Infinity
    const rank = distance <= most
      ? distance
      : wanted.length > 3 && other.includes(wanted)
      ? LONGEST + other.length
      : undefined
    const title = rank === undefined ? undefined : titleOf(btf.type(id))
    if (rank !== undefined && title !== undefined) ranks.set(title, rank)
  }
  return [...ranks].sort((a, b) => a[1] - b[1]).slice(0, MOST).map(([title]) => title)
}

/** As `findTypes` would take it. */
const titleOf = (type: BtfType | undefined): string | undefined => {
  if (type === undefined || !("name" in type) || TAGS.includes(type.kind)) return undefined
  if (type.kind === "FWD") return `${type.of} ${type.name}`
  const keyword = [...KEYWORDS].find(([, kinds]) => kinds.includes(type.kind))?.[0]
  return keyword === undefined ? type.name : `${keyword} ${type.name}`
}

/** Letters to insert, remove or replace (Levenshtein). */
const editDistance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1]
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min(next[j] + 1, row[j + 1] + 1, row[j] + (a[i] === b[j] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]
}
