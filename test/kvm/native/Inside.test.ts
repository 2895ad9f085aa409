import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { vmlinuxOf } from "../../../src/core/image/KernelImage.ts"
import { makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"
import { KTSTR } from "../../support/cli.ts"
import { compileBpf } from "../../support/guest.ts"
import { kernelImage } from "../../support/kernels.ts"
import { needsScx, scx } from "../../support/scx.ts"
import { bundle, HPET_CLOCK, type InsideOptions, runInside, shared } from "./support/harness.ts"

const SECONDS = 540
const FREEZES = "100"
const tests = new URL("../../", import.meta.url).pathname

/** Run a program of `inside` to its end; its exit status must be 0. */
const inside = (name: string, directory: string, args: ReadonlyArray<string>, options?: InsideOptions) =>
  Effect.gen(function*() {
    const { lines, status } = yield* runInside(yield* bundle(name, directory), args, SECONDS, options)
    assert.strictEqual(status, 0, lines.slice(-60).join("\n"))
    return lines.flatMap((line) => /^\[[\d.]+ s\] ok: (.*)/.exec(line)?.[1] ?? [])
  })

/** Write an initramfs with these files and this script; gives its path. */
const initramfsIn = (directory: string, name: string, includes: ReadonlyArray<string>, script: string) =>
  Effect.map(makeInitramfs({ includes, script }), (bytes) => {
    const path = join(directory, name)
    writeFileSync(path, bytes)
    return path
  })

const talking = `
  echo "release $(uname -r)"; echo "processors $(nproc)"
  bpftool map create /sys/fs/bpf/counts type hash key 4 value 8 entries 16 name counts
  for key in 1 2 250; do
    bpftool map update pinned /sys/fs/bpf/counts key $key 0 0 0 value $key 0 0 7 0 0 0 9
  done
  echo "maps $(bpftool -j map list)"
  echo "counts $(bpftool -j map dump pinned /sys/fs/bpf/counts)"
  (while :; do read up idle < /proc/uptime; echo "tick $up"; usleep 100000; done) &
  (read line < /dev/ttyS0; echo "typed: $line"; poweroff -f) &
  exit 0`

/** Runs load.c until a line is typed; no kernel message tears its lines, they come at the end. */
const loaded = (before: string) => `
  echo "release $(uname -r)"
  dmesg -n 1; echo on > /proc/sys/kernel/printk_devkmsg
  ${before}
  echo "clock: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
  (load < /dev/ttyS0
   [ ! -e /sys/kernel/sched_ext/state ] || echo "scx: $(cat /sys/kernel/sched_ext/state /sys/kernel/sched_ext/root/ops)"
   dmesg -s 1000000; echo "dmesg ends"; poweroff -f) &
  exit 0`

const compileLoad = (directory: string): string => {
  const program = join(directory, "load")
  const source = new URL("inside/load.c", import.meta.url).pathname
  execFileSync("gcc", ["-static", "-O1", "-Wall", "-Werror", "-pthread", source, "-o", program])
  return program
}

it.scopedLive(
  "a Debian kernel boots on real KVM, is frozen, dumped, typed to and switched off",
  () =>
    Effect.gen(function*() {
      const directory = yield* shared
      const initramfs = yield* initramfsIn(directory, "guest", ["/usr/sbin/bpftool"], talking)
      const kernel = yield* kernelImage("6.12")
      const vmlinux = join(directory, "vmlinux")
      writeFileSync(vmlinux, yield* vmlinuxOf(readFileSync(kernel), kernel))
      const held = yield* inside("boot", directory, [kernel, vmlinux, initramfs, "2"])
      assert.strictEqual(held.at(-1), "nothing is left of it")
    }),
  (SECONDS + 30) * 1000
)

it.scopedLive(
  "a Debian kernel under load on 1 and 2 CPUs is frozen over and over and loses nothing",
  () =>
    Effect.gen(function*() {
      const directory = yield* shared
      const kernel = yield* kernelImage("6.12")
      const initramfs = yield* initramfsIn(directory, "guest", [compileLoad(directory)], loaded(""))
      yield* inside("load", directory, [
        kernel,
        initramfs,
        "2",
        FREEZES,
        kernel,
        initramfs,
        "1",
        "10"
      ])
    }),
  (SECONDS + 30) * 1000
)

it.scopedLive(
  "on a host whose clock is not the TSC too",
  () =>
    Effect.gen(function*() {
      const directory = yield* shared
      const kernel = yield* kernelImage("6.12")
      const initramfs = yield* initramfsIn(directory, "guest", [compileLoad(directory)], loaded(""))
      yield* inside("load", directory, [kernel, initramfs, "2", "10"], { clock: HPET_CLOCK })
    }),
  (SECONDS + 30) * 1000
)

it.scopedLive(
  "ktstr dump --engine kvm prints what bpftool says in the guest",
  () =>
    Effect.gen(function*() {
      const directory = yield* shared
      const kernel = yield* kernelImage("6.12")
      const objects = yield* compileBpf(directory, "types")
      const scripts = ["fill.sh", "capture.sh"].map((name) => join(tests, "bpf-src", name))
      const includes = ["/usr/sbin/bpftool", ...objects, ...scripts].flatMap((path) => ["--include", path])
      // small maps: a byte on the serial line is an exit to the emulated machine, and from there to us
      const script = `sh /include-files/fill.sh
        bpftool map create /sys/fs/bpf/trie type lpm_trie key 8 value 4 entries 8 flags 1 name trie
        bpftool map create /sys/fs/bpf/least type lru_hash key 4 value 8 entries 8 name least
        for n in 1 2 3; do
          bpftool map update pinned /sys/fs/bpf/trie key $((8 * n)) 0 0 0 10 $n 0 0 value $n 0 0 9
          bpftool map update pinned /sys/fs/bpf/least key $n 0 0 0 value $n 0 0 0 0 0 0 0xff
        done
        LARGEST=70000 sh /include-files/capture.sh`
      const options = ["--kernel", kernel, "--cpus", "2", "--timeout", "400", ...includes, "--exec", script]
      yield* inside("dump", directory, [KTSTR, ...options])
    }),
  (SECONDS + 30) * 1000
)

it.scopedLive(
  "the command chooses the native engine by itself, for commands and for a shell",
  () =>
    Effect.gen(function*() {
      const held = yield* inside("command", yield* shared, [KTSTR, yield* kernelImage("6.12")])
      assert.strictEqual(held.length, 3)
    }),
  (SECONDS + 30) * 1000
)

describe("the sched_ext kernel", () => {
  beforeEach(needsScx)
  it.scopedLive(
    "under load on 4 and 2 CPUs, scheduled by scx_simple, is frozen over and over and loses nothing",
    () =>
      Effect.gen(function*() {
        const directory = yield* shared
        const built = yield* scx
        const entry = join(built.root, built.key)
        const initramfs = yield* initramfsIn(
          directory,
          "guest",
          [compileLoad(directory), built.scheduler("scx_simple"), join(tests, "scx/guest.sh")],
          loaded(". /include-files/guest.sh; start scx_simple > /tmp/scx_simple")
        )
        const [bzImage, vmlinux] = [join(entry, "bzImage"), join(entry, "vmlinux")]
        yield* inside("load", directory, [
          vmlinux,
          initramfs,
          "4",
          FREEZES,
          bzImage,
          initramfs,
          "2",
          "10"
        ])
      }),
    (SECONDS + 30) * 1000
  )
})
