import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { vmlinuxOf } from "../../../src/core/KernelImage.ts"
import { makeInitramfs } from "../../../src/kvm/Initramfs.ts"
import { kernelImage } from "../../support/kernels.ts"
import { bundle, runInside, shared } from "./support/harness.ts"

const SECONDS = 540

const script = `
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

it.scopedLive(
  "a Debian kernel boots on real KVM, is frozen, dumped, typed to and switched off",
  () =>
    Effect.gen(function*() {
      const directory = yield* shared
      const initramfs = join(directory, "guest")
      writeFileSync(initramfs, yield* makeInitramfs({ includes: ["/usr/sbin/bpftool"], script }))
      const kernel = yield* kernelImage("6.12")
      const vmlinux = join(directory, "vmlinux")
      writeFileSync(vmlinux, yield* vmlinuxOf(readFileSync(kernel), kernel))
      const program = yield* bundle("boot", directory)
      const { lines, status } = yield* runInside(program, [kernel, vmlinux, initramfs, "2"], SECONDS)
      assert.strictEqual(status, 0, lines.slice(-60).join("\n"))
      assert.isTrue(lines.some((line) => line.endsWith("ok: nothing is left of it")))
    }),
  (SECONDS + 30) * 1000
)
