// Runs where /dev/kvm is real: `ktstr dump --engine kvm --json` of a guest whose maps bpftool has printed inside it, and the
// comparison of the two. Arguments: the command and its options; the guest runs capture.sh last.
import assert from "node:assert"
import { spawnSync } from "node:child_process"
import { readFileSync, writeSync } from "node:fs"
import {
  NotPrinted,
  parseEntries,
  parseMaps,
  type Plain,
  type PrintedMap,
  PrintedTypes
} from "../../../support/bpftool.ts"
import { parseCapture } from "../../../support/capture.ts"

/** The types of plain keys and values. */
const KEYED = ["array", "hash", "lru_hash", "percpu_array", "percpu_hash", "lru_percpu_hash", "lpm_trie"]

interface DumpedEntry {
  readonly key: Plain
  readonly value?: Plain | undefined
  readonly cpus?: ReadonlyArray<Plain> | undefined
}
interface DumpedMap extends Omit<PrintedMap, "btfId"> {
  readonly consistency: string
  readonly entries: ReadonlyArray<DumpedEntry>
  readonly problem: { readonly kind: string; readonly text: string } | null
}
interface Dump {
  readonly source: { readonly engine: string }
  readonly freeze: { readonly cpus: number }
  readonly kernel: { readonly release: string }
  readonly maps: ReadonlyArray<DumpedMap>
}

const start = performance.now()
const [ktstr, ...options] = process.argv.slice(2)
const consoleFile = "/run/console"
const run = spawnSync(
  process.execPath,
  [ktstr, "dump", "--engine", "kvm", "--json", "--console", consoleFile, ...options],
  { stdio: ["ignore", "pipe", "inherit"], encoding: "utf8", maxBuffer: 2 ** 28 }
)
assert.strictEqual(run.status, 0, readFileSync(consoleFile, "latin1").slice(-4000))
const dump: Dump = JSON.parse(run.stdout)
const printed = parseCapture(readFileSync(consoleFile, "latin1"))
const file = (name: string) => printed.get(name) ?? assert.fail(`bpftool printed no ${name}`)

assert.strictEqual(dump.source.engine, "kvm")
assert.strictEqual(dump.kernel.release, file("release").trim())
assert.strictEqual(`${dump.freeze.cpus}`, file("cpus").trim())
const theirs = parseMaps(file("maps.json"))
const listed = ({ flags, id, keySize, maxEntries, name, type, valueSize }: Omit<PrintedMap, "btfId">) => (
  { id, name, type, flags, keySize, valueSize, maxEntries }
)
assert.deepStrictEqual(dump.maps.map(listed), theirs.map(listed))
const types = new Set<string>()
let entries = 0
for (const [index, map] of theirs.entries()) {
  const shown = printed.get(`map-${map.id}.json`)
  if (!KEYED.includes(map.type) || shown === undefined) continue
  const { consistency, entries: shownByUs, problem } = dump.maps[index]
  // bpftool prints typed values only: the raw bytes beside an ambiguous one are left out of the comparison
  const ours = shownByUs.map(({ cpus, key, value }): DumpedEntry => cpus === undefined ? { key, value } : { key, cpus })
  assert.deepStrictEqual({ consistency, problem }, { consistency: "frozen", problem: null })
  const btf = map.btfId === null ? undefined : new PrintedTypes(file(`btf-${map.btfId}.json`))
  const plain = parseEntries(shown, map, btf).map(({ plain }) => plain)
  assert.strictEqual(ours.length, plain.length, `entries of map ${map.id} ${map.name}`)
  // bpftool cannot print floating point
  if (plain.some((entry) => entry instanceof NotPrinted)) assert.strictEqual(map.name, "array_reals")
  else assert.deepStrictEqual(inOrder(ours), inOrder(plain), `map ${map.id} ${map.name} (${map.type})`)
  types.add(map.type)
  entries += ours.length
}
assert.deepStrictEqual([...types].sort(), KEYED.toSorted())
assert.ok(entries > 100)
const seconds = ((performance.now() - start) / 1000).toFixed(1)
writeSync(
  1,
  `[${seconds} s] ok: ${theirs.length} maps, ${entries} entries of ${types.size} types are what bpftool says\n`
)

/** By their JSON: hash tables have no order. */
function inOrder<A>(list: ReadonlyArray<A>): ReadonlyArray<A> {
  return [...list].sort((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)
}
