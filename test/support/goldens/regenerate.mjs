// Makes the goldens beside it: a few maps of a capture that test/bpf-src/capture.sh printed, cut to a few entries each.
// CONSOLE is a guest's console log (--console FILE) of a run of fill.sh and capture.sh on two CPUs:
//     node test/support/goldens/regenerate.mjs CONSOLE
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"

const keep = {
  array_struct: 4,
  array_wide: 3,
  array_reals: 3,
  hash_made_on_de: 2,
  hash_enum: 10,
  hash_empty: 1,
  percpu_array: 2,
  plain_hash: 3,
  plain_array: 2,
  plain_percpu: 2,
  "types.rodata": 1,
  "types.data": 1,
  perf_events: 1
}

const log = readFileSync(process.argv[2], "latin1")
const base64 = /==== capture begins\s([^=]*={0,2})\s*==== capture ends/.exec(log)[1]
const tar = Buffer.from(base64, "base64")
const file = (name) =>
  execFileSync("tar", ["-xzO", `./${name}`], { input: tar, maxBuffer: 2 ** 28, encoding: "utf8" }).trim()

const maps = JSON.parse(file("maps.json")).filter((map) => map.name in keep)
const dumps = {}
for (const { id, name } of maps) {
  const entries = file(`map-${id}.json`).slice(1, -1).split(/,(?=\{"key":\["0x)/) // as text: it is not always JSON
  dumps[id] = `[${entries.slice(0, keep[name]).join(",")}]`
}
const btfs = Object.fromEntries(
  [...new Set(maps.flatMap((map) => map.btf_id ?? []))].map((id) => [id, file(`btf-${id}.json`)])
)
writeFileSync(
  new URL("bpftool.json", import.meta.url),
  `${JSON.stringify({ release: file("release"), maps: JSON.stringify(maps), dumps, btfs }, null, 1)}\n`
)
