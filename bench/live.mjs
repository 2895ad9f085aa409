// A million typed entries (8-byte key, 72-byte struct) of the running kernel, as NDJSON to /dev/null: our whole process
// against bpftool's, in turn. Needs root; loads the map and unloads it again.
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, openSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { here, pair } from "./measure.mjs"

const RUNS = 5

/** Milliseconds of ours and theirs, and the ratio. `directory` is for the object that `compile` makes, and goes again. */
export const liveRatio = (compile, entries, directory) => {
  const pins = mkdtempSync("/sys/fs/bpf/ktstr-bench-")
  process.once("exit", () => spawnSync("rm", ["-r", pins])) // bpffs knows no recursive removal by file type
  execFileSync("bpftool", [
    "prog",
    "loadall",
    compile(directory),
    join(pins, "programs"),
    "pinmaps",
    join(pins, "maps")
  ])
  const input = join(directory, "input")
  writeFileSync(input, new Uint8Array(64))
  const run = ["prog", "run", "pinned", join(pins, "programs", "fill_big_map"), "data_in", input]
  execFileSync("bpftool", [...run, "repeat", String(entries / 1000)], { stdio: "ignore" })
  const { id } = JSON.parse(
    execFileSync("bpftool", ["-j", "map", "show", "pinned", join(pins, "maps", "big_map")], { encoding: "utf8" })
  )
  const ours = [process.execPath, here("../dist/bin/ktstr.cjs"), "dump", "--live", "--map", String(id), "--ndjson"]
  const kept = join(directory, "entries.ndjson")
  spawnSync(ours[0], ours.slice(1), { stdio: ["ignore", openSync(kept, "w"), "ignore"] })
  const read = execFileSync("grep", ["-c", "^{\"record\":\"entry\"", kept], { encoding: "utf8" }).trim()
  if (Number(read) !== entries) throw new Error(`${read} entries were read`)
  return pair(RUNS, ours, ["bpftool", "-j", "map", "dump", "id", String(id)])
}
