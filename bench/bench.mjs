// Prints what we promise about speed, measured in this run, beside its limit. Each number comes from fresh processes;
// the median counts. Makes its memory images by booting guests, in a temporary directory that goes again.
import * as NodeContext from "@effect/platform-node/NodeContext"
import CliTable from "cli-table3"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, openSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { KernelResolver } from "../dist/core/kernels/KernelResolver.js"
import * as NativeKoffi from "../dist/core/NativeKoffi.js"
import { bootAndFreeze } from "../dist/Ktstr.js"
import * as Qemu from "../dist/kvm/qemu/Qemu.js"
import { saveImage } from "../dist/memory/SaveImage.js"

const ENTRIES = 1_000_000
const directory = mkdtempSync(join(tmpdir(), "ktstr-bench-"))
process.on("exit", () => rmSync(directory, { recursive: true, force: true }))
process.on("SIGINT", () => process.exit(130))
process.on("SIGTERM", () => process.exit(130))

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]
const here = (name) => new URL(name, import.meta.url).pathname

/** Run a measuring script in fresh processes; each prints one JSON object. Gives the median of every field. */
const measure = (runs, script, ...words) => {
  const results = Array.from(
    { length: runs },
    () => JSON.parse(execFileSync(process.execPath, [here(script), ...words], { encoding: "utf8" }))
  )
  return Object.fromEntries(Object.keys(results[0]).map((key) => [key, median(results.map((result) => result[key]))]))
}

/** Median wall milliseconds of two commands, run in turn so that a noisy machine troubles both. */
const pair = (runs, a, b) => {
  const quiet = openSync("/dev/null", "w")
  const time = ([file, ...words]) => {
    const start = performance.now()
    const { status } = spawnSync(file, words, { stdio: ["ignore", quiet, quiet] })
    if (status !== 0) throw new Error(`${file} ${words.join(" ")} ended with ${status}`)
    return performance.now() - start
  }
  const times = Array.from({ length: runs + 1 }, () => [time(a), time(b)]).slice(1)
  return [median(times.map(([x]) => x)), median(times.map(([, y]) => y)), median(times.map(([x, y]) => x / y))]
}

const image = (name, options) =>
  Effect.gen(function*() {
    const path = join(directory, `${name}.mem`)
    const { kernel } = yield* bootAndFreeze({ kernel: "debian:6.12-cloud", timeout: "5 minutes", ...options })
    yield* saveImage(kernel.memory, path)
    return path
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Layer.mergeAll(Qemu.layer, KernelResolver.layer).pipe(
        Layer.provideMerge(NativeKoffi.layer),
        Layer.provideMerge(NodeContext.layer)
      )
    ),
    Effect.runPromise
  )

const compile = (source, ...defines) => {
  const object = join(directory, "bench.bpf.o")
  const flags = [
    "-O2",
    "-g",
    "-target",
    "bpf",
    "-I/usr/include/x86_64-linux-gnu",
    ...defines.map((each) => `-D${each}`)
  ]
  execFileSync("clang", [...flags, "-c", here(source), "-o", object])
  return object
}

const MAPS = 1000
/** Keyed types besides hash, each with what big.bpf.c is compiled with. Per-CPU types are filled on one CPU and on two. */
const TYPES = {
  array: ["TYPE=BPF_MAP_TYPE_ARRAY", "ARRAY"],
  lru_hash: ["TYPE=BPF_MAP_TYPE_LRU_HASH"],
  lpm_trie: ["TYPE=BPF_MAP_TYPE_LPM_TRIE", "TRIE"],
  percpu_array: ["TYPE=BPF_MAP_TYPE_PERCPU_ARRAY", "PERCPU", "ARRAY"],
  percpu_hash: ["TYPE=BPF_MAP_TYPE_PERCPU_HASH", "PERCPU"],
  lru_percpu_hash: ["TYPE=BPF_MAP_TYPE_LRU_PERCPU_HASH", "PERCPU"]
}
/** Types whose slots hold kernel objects, as slots.c names its maps. */
const SLOTS = [
  "array_of_maps",
  "hash_of_maps",
  "prog_array",
  "cgroup_array",
  "devmap",
  "devmap_hash",
  "sockmap",
  "sockhash"
]

console.error("booting thirteen guests for their memory images, one after another…")
const big = compile("big.bpf.c")
const load = (repeat) =>
  `set -e
   bpftool prog loadall /include-files/bench.bpf.o /sys/fs/bpf/bench
   dd if=/dev/zero of=/tmp/input bs=64 count=1 2>/dev/null
   n=0
   while [ $n -lt ${repeat} ]; do bpftool prog run pinned /sys/fs/bpf/bench/fill_big_map data_in /tmp/input; n=$((n + 1)); done`
const includes = ["/usr/sbin/bpftool", big]
const small = await image("small", { memoryMib: 512, includes, script: load(1) })
const million = await image("million", { memoryMib: 1536, includes, script: load(ENTRIES / 1000) })

const index = measure(9, "btf-index.mjs", "/sys/kernel/btf/vmlinux")
const attach = measure(7, "attach.mjs", small, "big_map")
const stream = measure(5, "stream.mjs", million, "big_map")
const types = []
for (const [type, defines] of Object.entries(TYPES)) {
  compile("big.bpf.c", ...defines)
  for (const cpus of defines.includes("PERCPU") ? [1, 2] : [1]) {
    const path = await image(type, { memoryMib: 1536, cpus, includes, script: load(ENTRIES / 1000) })
    types.push([cpus === 1 ? type : `${type} (${cpus} values an entry)`, measure(3, "stream.mjs", path, "big_map")])
    rmSync(path)
  }
}
const fill = join(directory, "slots")
execFileSync("gcc", ["-static", "-O1", "-Wall", here("slots.c"), "-o", fill])
const slots = await image("slots", { memoryMib: 1536, includes: [fill], script: "slots" })
for (const type of SLOTS) types.push([type, measure(3, "stream.mjs", slots, type)])
rmSync(slots)
const create = `n=0
  while [ $n -lt ${MAPS} ]; do
    n=$((n + 1))
    bpftool map create /sys/fs/bpf/map$n type hash key 4 value 8 entries 1 name map$n || exit 1
  done`
const many = await image("many", { memoryMib: 512, includes, script: create })
const list = measure(7, "list.mjs", many)
const bin = here("../dist/bin/ktstr.cjs")
const [help, node, startup] = pair(15, [process.execPath, bin, "--help"], [process.execPath, "-e", "0"])
const ms = (n) => `${n < 10 ? n.toFixed(1) : Math.round(n)} ms`
const table = new CliTable({ head: ["what", "measured", "limit", "measured / limit"], style: { head: [], border: [] } })
const row = (what, measured, limit, ratio) =>
  table.push([what, measured, limit, `${ratio.toFixed(2)} ${ratio <= 1 ? "ok" : "MISSED"}`])
row(
  `cold index of vmlinux BTF (${(index.bytes / 1e6).toFixed(1)} MB) and 20 names`,
  ms(index.ms),
  "20 ms",
  index.ms / 20
)
row("attach to a 512 MiB image, file to first typed entry", ms(attach.ms), "150 ms", attach.ms / 150)
row(
  `${stream.entries} typed entries (8 + 72 bytes) to NDJSON`,
  `${Math.round(stream.perSecond / 1000)}k entries/s`,
  "700k entries/s",
  700_000 / stream.perSecond
)
for (const [type, { entries, grownMB, perSecond }] of types) {
  row(
    `${entries} entries of ${type} to NDJSON, ${grownMB.toFixed(0)} MB grown`,
    `${Math.round(perSecond / 1000)}k entries/s`,
    "500k entries/s",
    500_000 / perSecond
  )
}
row(`listing ${list.maps} maps, after the attach`, ms(list.ms), "100 ms", list.ms / 100)
row("memory for the hash, beyond the mapped image", `${stream.grownMB.toFixed(0)} MB`, "100 MB", stream.grownMB / 100)
row(`ktstr --help, against node -e 0 (${ms(node)})`, ms(help), `4 × node`, startup / 4)
if (stream.entries !== ENTRIES) throw new Error(`the image has ${stream.entries} entries`)
console.log(table.toString())
