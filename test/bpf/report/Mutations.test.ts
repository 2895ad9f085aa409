import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { DUMP_VERSION, DumpDocument } from "../../../src/bpf/Report.ts"
import { parseDump } from "../../../src/bpf/report/DiffInput.ts"
import { changes, NotADump, sideOfDocument } from "../../../src/bpf/report/SnapshotDiff.ts"
import { escapeLine } from "../../../src/cli/terminal/escapeControls.ts"
import { mutateJson, MUTATIONS, MUTATIONS_TIMEOUT, peakMib, tryAll } from "../../support/mutations.ts"

/** More than the peak before, in MiB: what files of a few KiB may make this process use. */
const MOST_GROWTH = 512

const header = {
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "a" },
  kernel: { release: "6.12", pageTableLevels: 4, kaslrOffset: "0x0", possibleCpus: 2 },
  freeze: null
}
const info = (id: number, type: string) => ({
  id,
  name: "made",
  type,
  flags: 0,
  keySize: 4,
  valueSize: 8,
  maxEntries: 8,
  keyTypeId: 1,
  valueTypeId: 2,
  btfId: 1,
  details: null,
  consistency: "frozen"
})
const plainEntries = [
  { key: { cgrp: 1, llc: 3 }, keyBytes: "0100000003000000", value: 7 },
  {
    key: "a",
    value: { list: [1, 2, { $unreadable: "0x10 is not mapped" }], float: -0.5, big: "18446744073709551615" }
  },
  { key: 2, value: [true, null, "text"], valueBytes: "00ff" }
]
const cpuEntries = [{ key: 1, cpus: [1, null], cpuBytes: [null, "00ff"] }, { key: 2, cpus: [{ runs: 5 }, { runs: 6 }] }]
const program = { id: 7, name: "p", type: "xdp" }
const problem = { kind: "unreadable", text: "0x10 is not mapped" }

/** A dump as `--json` and as `--ndjson` have it. */
const golden = JSON.stringify({
  ...header,
  maps: [
    { ...info(1, "hash"), entries: plainEntries, truncated: false, problem: null },
    { ...info(2, "percpu_hash"), entries: cpuEntries, truncated: true, problem }
  ],
  programs: [program],
  problems: [problem],
  losses: 2
})
const goldenLines = [
  { record: "dump", ...header },
  { record: "map", ...info(1, "hash") },
  ...plainEntries.map((entry) => ({ record: "entry", id: 1, name: "made", ...entry })),
  { record: "mapEnd", id: 1, name: "made", entries: 3, truncated: false, problem: null },
  { record: "map", ...info(2, "percpu_hash") },
  ...cpuEntries.map((entry) => ({ record: "entry", id: 2, name: "made", ...entry })),
  { record: "mapEnd", id: 2, name: "made", entries: 2, truncated: true, problem },
  { record: "program", ...program },
  { record: "problem", problem },
  { record: "end", losses: 2 }
].map((record) => `${JSON.stringify(record)}\n`).join("")

const whole = (text: string): DumpDocument => Either.getOrThrow(parseDump(text, "whole"))

/** Compare with the whole one both ways, as far as it is a dump; whether it is. */
const compared = (text: string, golden: DumpDocument): boolean => {
  const parsed = parseDump(text, "mutated")
  assert.notProperty({}, "polluted")
  if (Either.isLeft(parsed)) {
    assert.instanceOf(parsed.left, NotADump)
    const line = escapeLine(parsed.left.message)
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
    assert.notMatch(line, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    return false
  }
  const sides = [sideOfDocument(parsed.right), sideOfDocument(golden)] as const
  for (const change of [...changes(sides[0], sides[1]), ...changes(sides[1], sides[0])]) {
    assert.isNotEmpty(JSON.stringify(change))
  }
  assert.deepStrictEqual([...changes(sides[0], sides[0])].filter(({ change }) => change !== "problem"), [])
  return true
}

it("an entry without a key or a value is not one of a dump", () => {
  for (const entry of [{ value: 1 }, { key: 1 }, { cpus: [1] }, { key: 1, cpus: [1], value: 1 }]) {
    const lines = goldenLines.replace(
      /^.*"keyBytes".*$/m,
      JSON.stringify({ record: "entry", id: 1, name: "made", ...entry })
    )
    const document = golden.replace(JSON.stringify(plainEntries[0]), JSON.stringify(entry))
    for (const text of [lines, document]) {
      assert.notInclude([golden, goldenLines], text)
      const parsed = parseDump(text, "made")
      if ("key" in entry && "cpus" in entry) assert.isTrue(Either.isRight(parsed))
      else assert.match(Either.isLeft(parsed) ? parsed.left.message : "", /^made is not a dump: .*: is missing; /)
    }
  }
})

describe(`${MUTATIONS} mutations are refused or compared, whatever they say:`, () => {
  for (const [name, text] of Object.entries({ "a document": golden, "records": goldenLines })) {
    it(name, async () => {
      const before = peakMib()
      const document = whole(text)
      assert.lengthOf(document.maps, 2)
      const read = await tryAll((pick) => compared(mutateJson(text, pick), document))
      assert.isAbove(read, MUTATIONS / 10, "enough of them are dumps")
      assert.isBelow(peakMib() - before, MOST_GROWTH, "MiB more than before")
    }, MUTATIONS_TIMEOUT)
  }
})
