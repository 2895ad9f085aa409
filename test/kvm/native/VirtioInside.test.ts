import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { makeInitramfs } from "../../../src/kvm/guest/Initramfs.ts"
import { needsScx, scx } from "../../support/scx.ts"
import { bundle, runInside, shared } from "./support/harness.ts"

const SECONDS = 400

/** Tells of its disks, writes to them, offers a shell on hvc0, then reads and writes for ever. */
const script = `
  for disk in vda vdb; do
    at=/sys/class/block/$disk
    echo "$disk $(cat $at/size) $(cat $at/ro) $(cat $at/serial)"
    echo "$disk-sum $(sha256sum < /dev/$disk)"
  done
  head -c 1048576 /dev/urandom > /tmp/new
  dd if=/tmp/new of=/dev/vda bs=64k seek=16 conv=fsync,notrunc 2>/dev/null
  echo "new $(sha256sum < /tmp/new)"
  dd if=/tmp/new of=/dev/vdb bs=512 count=1 conv=fsync,notrunc 2>/dev/null || echo "refused yes"
  # not with &, which would have it ignore ctrl-c
  echo 'exec setsid -c sh -i < /dev/hvc0 > /dev/hvc0 2>&1' > /tmp/terminal
  start-stop-daemon -S -b -x /bin/sh -- /tmp/terminal
  (i=0; while :; do
    i=$((i+1)); echo 3 > /proc/sys/vm/drop_caches
    dd if=/dev/vda of=/tmp/read bs=64k count=16 2>/dev/null
    dd if=/tmp/read of=/dev/vda bs=64k seek=64 conv=fsync,notrunc 2>/dev/null; echo "io $i"
  done) &
  exit 0`

describe("virtio devices of the native engine", () => {
  beforeEach(needsScx)
  it.scopedLive(
    "the sched_ext kernel reads and writes disks and has a terminal, on real KVM",
    () =>
      Effect.gen(function*() {
        const directory = yield* shared
        const { key, root } = yield* scx
        const initramfs = join(directory, "guest")
        writeFileSync(initramfs, yield* makeInitramfs({ script }))
        const program = yield* bundle("virtio", directory)
        const { lines, status } = yield* runInside(program, [join(root, key, "bzImage"), initramfs], SECONDS)
        assert.strictEqual(status, 0, lines.slice(-60).join("\n"))
        assert.isTrue(lines.some((line) => line.endsWith("ok: done")))
      }),
    (SECONDS + 30) * 1000
  )
})
