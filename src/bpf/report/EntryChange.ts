import type { Json } from "../../btf/render/RenderedValue.ts"
import type { EntryChanged, EntryWhole } from "./DiffChange.ts"
import { changedCopies, changedFields } from "./DiffFields.ts"
import type { EntryTexts } from "./EntryJson.ts"

/** Do two entries of one key have different bytes in their values? */
export const isChanged = (before: EntryTexts, after: EntryTexts): boolean =>
  before.value !== after.value || before.valueBytes !== after.valueBytes

/** An entry that came or went. */
export const wholeEntry = ({ key, keyBytes, value, valueBytes }: EntryTexts): EntryWhole => ({
  ...keyOf({ key, keyBytes }),
  value: parse(value),
  ...(valueBytes === null ? {} : { valueBytes: JSON.parse(valueBytes) })
})

/** The change of an entry: the fields that its form shows, and its bytes where it hides some on either side. */
export const changedEntry = (before: EntryTexts, after: EntryTexts, seconds: number | null): EntryChanged => {
  const [old, now] = [parse(before.value), parse(after.value)]
  const fields = after.perCpu && Array.isArray(old) && Array.isArray(now)
    ? changedCopies(old, now, seconds)
    : changedFields(old, now, seconds)
  const bytesChanged = before.valueBytes !== after.valueBytes
  const bytes = { before: JSON.parse(before.valueBytes ?? "null"), after: JSON.parse(after.valueBytes ?? "null") }
  return { ...keyOf(after), fields, ...(bytesChanged ? { bytes } : {}) }
}

const keyOf = ({ key, keyBytes }: Pick<EntryTexts, "key" | "keyBytes">) => ({
  key: parse(key),
  ...(keyBytes === null ? {} : { keyBytes: JSON.parse(keyBytes) })
})

const parse = (text: string): Json => JSON.parse(text)
