// A million typed entries (8-byte key, 72-byte struct) of the running kernel, as NDJSON to /dev/null: our whole process
// against bpftool's, in turn, beside the limit. Needs root; loads the map and unloads it again.
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const ENTRIES = 1_000_000
const LIMIT = 0.25
const RUNS = 5
const here = (name) => new URL(name, import.meta.url).pathname
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]

const directory = mkdtempSync(join(tmpdir(), "ktstr-bench-"))
const pins = mkdtempSync("/sys/fs/bpf/ktstr-bench-")
const clean = () => {
  rmSync(directory, { recursive: true, force: true })
  spawnSync("rm", ["-r", pins]) // bpffs knows no recursive removal by file type
}
process.on("exit", clean)
process.on("SIGINT", () => process.exit(130))
process.on("SIGTERM", () => process.exit(130))

const object = join(directory, "big.bpf.o")
const flags = ["-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu"]
execFileSync("clang", [...flags, "-c", here("big.bpf.c"), "-o", object])
execFileSync("bpftool", ["prog", "loadall", object, join(pins, "programs"), "pinmaps", join(pins, "maps")])
const input = join(directory, "input")
writeFileSync(input, new Uint8Array(64))
const run = ["prog", "run", "pinned", join(pins, "programs", "fill_big_map"), "data_in", input]
execFileSync("bpftool", [...run, "repeat", String(ENTRIES / 1000)], { stdio: "ignore" })
const { id } = JSON.parse(
  execFileSync("bpftool", ["-j", "map", "show", "pinned", join(pins, "maps", "big_map")], { encoding: "utf8" })
)

const kept = join(directory, "entries.ndjson")
const words = [here("../dist/bin/ktstr.cjs"), "dump", "--live", "--map", String(id), "--ndjson"]
spawnSync(process.execPath, words, { stdio: ["ignore", openSync(kept, "w"), "ignore"] })
const entries = execFileSync("grep", ["-c", "^{\"record\":\"entry\"", kept], { encoding: "utf8" }).trim()
if (Number(entries) !== ENTRIES) throw new Error(`${entries} entries were read`)

const quiet = openSync("/dev/null", "w")
const time = (file, args) => {
  const start = performance.now()
  const { status } = spawnSync(file, args, { stdio: ["ignore", quiet, "ignore"] })
  if (status !== 0) throw new Error(`${file} ${args.join(" ")} ended with ${status}`)
  return performance.now() - start
}
const ours = () => time(process.execPath, words)
const theirs = () => time("bpftool", ["-j", "map", "dump", "id", String(id)])
const times = Array.from({ length: RUNS }, () => [ours(), theirs()])
const ratio = median(times.map(([a, b]) => a / b))
const seconds = (index) => `${(median(times.map((pair) => pair[index])) / 1000).toFixed(2)} s`
console.log(
  `${ENTRIES} live entries as NDJSON: ${seconds(0)}; bpftool map dump -j: ${seconds(1)}; `
    + `ratio ${ratio.toFixed(3)}, limit ${LIMIT}: ${ratio <= LIMIT ? "ok" : "MISSED"}`
)
