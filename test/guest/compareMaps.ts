import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Snapshot } from "../../src/Ktstr.ts"
import { parseEntries, parseMaps, PrintedTypes } from "../support/bpftool.ts"
import { byKey, comparable, compareEntries, KEYED, listed, withoutLeftovers } from "./entries.ts"

/**
 * Compare the maps of a snapshot with what bpftool listed in the guest, and the entries of those that it prints as we do; the
 * others are read. Gives the number of maps and of entries that were equal.
 */
export const compareMaps = ({ header, maps }: Snapshot, printed: ReadonlyMap<string, string>) =>
  Effect.gen(function*() {
    const { items, problems } = yield* maps.list
    assert.deepStrictEqual(problems, [])
    const theirs = withoutLeftovers(parseMaps(printed.get("maps.json")!), items, header.kernel.release)
    assert.deepStrictEqual(items.map(listed), theirs)
    let compared = 0
    let entries = 0
    for (const [index, info] of items.entries()) {
      if (!KEYED.has(info.type)) {
        yield* Stream.runDrain(maps.entries(info))
        continue
      }
      const map = theirs[index]
      const types = map.btfId === null ? undefined : new PrintedTypes(printed.get(`btf-${map.btfId}.json`)!)
      const expected = byKey(parseEntries(printed.get(`map-${map.id}.json`)!, map, types))
      const ours = byKey(Array.from(yield* Stream.runCollect(maps.entries(info)), comparable))
      compareEntries(info, ours, expected)
      compared++
      entries += ours.length
    }
    assert.isAtLeast(compared, 35)
    assert.isAtLeast(entries, 4096 + 1000)
    return { maps: items.length, entries }
  })
