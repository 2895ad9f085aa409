import type { Json } from "../../btf/render/RenderedValue.ts"
import { countOf } from "../Program.ts"
import type { FieldChange } from "./DiffChange.ts"

/** Objects and arrays in one another; deeper ones are compared as a whole. */
const DEEPEST = 64

/** The fields in which two values differ, in their order in the value. `seconds`: the time between the two, if known. */
export const changedFields = (before: Json, after: Json, seconds: number | null): ReadonlyArray<FieldChange> => {
  const changes: Array<FieldChange> = []
  compare("", before, after, null, seconds, changes, 0)
  return changes
}

/** As `changedFields`, of the copies of each CPU; null: no such CPU. Numbers that changed on several are summed too. */
export const changedCopies = (
  before: ReadonlyArray<Json>,
  after: ReadonlyArray<Json>,
  seconds: number | null
): ReadonlyArray<FieldChange> => {
  const changes: Array<FieldChange> = []
  for (let cpu = 0; cpu < Math.max(before.length, after.length); cpu++) {
    compare("", before[cpu] ?? null, after[cpu] ?? null, cpu, seconds, changes, 0)
  }
  const paths = new Map<string, number>()
  for (const { delta, path } of changes) if (delta !== null) paths.set(path, (paths.get(path) ?? 0) + 1)
  for (const [path, count] of paths) {
    if (count < 2) continue
    const [old, now] = [before, after].map((copies) =>
      copies.reduce<bigint>((sum, copy) => sum + (integerOf(partOf(copy, path)) ?? 0n), 0n)
    )
    changes.push(changed(path, "all", countOf(old), countOf(now), seconds))
  }
  return changes
}

const compare = (
  path: string,
  before: Json,
  after: Json,
  cpu: FieldChange["cpu"],
  seconds: number | null,
  changes: Array<FieldChange>,
  depth: number
): void => {
  if (before === after) return
  if (depth < DEEPEST && isObject(before) && isObject(after)) {
    for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
      const inner = path === "" ? name : `${path}.${name}`
      const [old, now] = [before, after].map((side) => Object.hasOwn(side, name) ? side[name] : null)
      compare(inner, old, now, cpu, seconds, changes, depth + 1)
    }
  } else if (depth < DEEPEST && Array.isArray(before) && Array.isArray(after) && before.length === after.length) {
    before.forEach((element: Json, index) =>
      compare(`${path}[${index}]`, element, after[index], cpu, seconds, changes, depth + 1)
    )
  } else if (JSON.stringify(before) !== JSON.stringify(after)) changes.push(changed(path, cpu, before, after, seconds))
}

const changed = (
  path: string,
  cpu: FieldChange["cpu"],
  before: Json,
  after: Json,
  seconds: number | null
): FieldChange => {
  const old = numberOf(before)
  const now = numberOf(after)
  if (old === undefined || now === undefined) return { path, cpu, before, after, delta: null, rate: null }
  const exact = typeof old === "bigint" && typeof now === "bigint" ? countOf(now - old) : null
  const delta = Number(now) - Number(old)
  const rate = seconds === null || seconds <= 0 ? null : (exact === null ? delta : Number(exact)) / seconds
  return { path, cpu, before, after, delta: exact, rate }
}

/** The integer that plain JSON shows: from 2^53 on as a string. Shorter digits in quotes are text. */
const integerOf = (json: Json | undefined): bigint | undefined => {
  if (typeof json === "number") return Number.isInteger(json) ? BigInt(json) : undefined
  if (typeof json !== "string" || !/^-?\d{16,39}$/.test(json)) return undefined
  const value = BigInt(json)
  return Number.isSafeInteger(Number(value)) ? undefined : value
}

const numberOf = (json: Json): bigint | number | undefined =>
  integerOf(json) ?? (typeof json === "number" ? json : undefined)

const isObject = (json: Json | undefined): json is { readonly [key: string]: Json } =>
  typeof json === "object" && json !== null && !Array.isArray(json)

/** The part of `json` at a path that `compare` made. */
const partOf = (json: Json, path: string): Json | undefined => {
  let part: Json | undefined = json
  for (const [, name, index] of path.matchAll(/([^.[\]]+)|\[(\d+)\]/g)) {
    if (index !== undefined) part = Array.isArray(part) ? part[Number(index)] : undefined
    else part = isObject(part) ? part[name] : undefined
  }
  return part
}
