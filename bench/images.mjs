// The memory images that rows read: made by booting a guest when a row asks for one first, in a directory that goes with
// the run, or in that of --images, where the next run finds them.
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { bootAndFreeze, KernelResolver } from "ktstr"
import { Qemu } from "ktstr/kvm"
import { saveImage } from "ktstr/memory"
import * as Native from "ktstr/native"
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { here } from "./measure.mjs"

export const KERNEL = "debian:6.12-cloud"
export const ENTRIES = 1_000_000
export const MAPS = 1000
export const THREADS = 10_000

export const Host = Layer.mergeAll(Qemu.layer, KernelResolver.layer).pipe(
  Layer.provideMerge(Native.layer),
  Layer.provideMerge(NodeContext.layer)
)

/** A directory that goes with this process. */
export const scratch = () => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-bench-"))
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** Compile big.bpf.c for a map's type; gives the object's path. */
export const compileBig = (directory, ...defines) => {
  const object = join(directory, "bench.bpf.o")
  const flags = ["-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu"]
  execFileSync("clang", [...flags, ...defines.map((each) => `-D${each}`), "-c", here("big.bpf.c"), "-o", object])
  return object
}

/** Each run of the program adds a thousand entries. */
const fill = (runs) =>
  `set -e
   bpftool prog loadall /include-files/bench.bpf.o /sys/fs/bpf/bench
   dd if=/dev/zero of=/tmp/input bs=64 count=1 2>/dev/null
   n=0
   while [ $n -lt ${runs} ]; do bpftool prog run pinned /sys/fs/bpf/bench/fill_big_map data_in /tmp/input; n=$((n + 1)); done`

const createMany = `n=0
  while [ $n -lt ${MAPS} ]; do
    n=$((n + 1))
    bpftool map create /sys/fs/bpf/map$n type hash key 4 value 8 entries 1 name map$n || exit 1
  done`

export class Images {
  #kept
  #directory

  /** @param kept where images stay and are found again; undefined: they go with this process */
  constructor(kept) {
    if (kept !== undefined) mkdirSync(kept, { recursive: true })
    this.#kept = kept
    this.#directory = scratch()
  }

  /** An image with `big_map`, filled by `runs` thousands of entries. */
  big(name, runs, { cpus = 1, defines = [], kernel = KERNEL, memoryMib = 1536 } = {}) {
    return this.#image(name, () => ({
      kernel,
      memoryMib,
      cpus,
      includes: ["/usr/sbin/bpftool", compileBig(this.#directory, ...defines)],
      script: fill(runs)
    }))
  }

  /** An image with a thousand small maps. */
  many() {
    return this.#image("many", () => ({ memoryMib: 512, includes: ["/usr/sbin/bpftool"], script: createMany }))
  }

  /** An image with the maps of slots.c. */
  slots() {
    return this.#image("slots", () => {
      const program = join(this.#directory, "slots")
      execFileSync("gcc", ["-static", "-O1", "-Wall", here("slots.c"), "-o", program])
      return { memoryMib: 1536, includes: [program], script: "slots" }
    })
  }

  /** An image with ten thousand threads that sleep. */
  threads() {
    return this.#image("threads", () => {
      const program = join(this.#directory, "threads")
      execFileSync("gcc", ["-static", "-O1", "-Wall", here("threads.c"), "-o", program, "-lpthread"])
      const script = `echo 40000 >/proc/sys/kernel/threads-max
        mkfifo /tmp/made
        threads ${THREADS} >/tmp/made &
        read made </tmp/made
        [ "$made" = ${THREADS} ]`
      return { memoryMib: 1536, includes: [program], script }
    })
  }

  /** Give the disk space back of an image that no other row asks for. */
  drop(path) {
    if (this.#kept === undefined) rmSync(path)
  }

  async #image(name, optionsOf) {
    const path = join(this.#kept ?? this.#directory, `${name}.mem`)
    if (existsSync(path)) return path
    process.stderr.write(`bench: booting a guest for ${name}.mem\n`)
    const program = Effect.gen(function*() {
      const { kernel } = yield* bootAndFreeze({ kernel: KERNEL, timeout: "5 minutes", ...optionsOf() })
      yield* saveImage(kernel.memory, `${path}.part`)
    })
    await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Host)))
    renameSync(`${path}.part`, path)
    return path
  }
}
