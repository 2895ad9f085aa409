import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ndjsonRecords } from "../../src/bpf/report/DumpWriter.ts"
import { vmlinuxOf } from "../../src/core/image/KernelImage.ts"
import { type KernelArtifacts, KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import { bootAndFreeze, prepare } from "../../src/Ktstr.ts"
import * as Qemu from "../../src/kvm/qemu/Qemu.ts"
import { HostLive, scratch } from "../support/guest.ts"

const KERNEL = "debian:7.3-cloud"

const SCRIPT = `
  cd /sys/fs/bpf
  bpftool map create hash type hash key 4 value 8 entries 64 name of_words
  for key in 1 2 3 4 5; do bpftool map update pinned hash key $key 0 0 0 value $key 1 2 3 4 5 6 7; done
  bpftool map create array type array key 4 value 4 entries 3 name in_a_row
  bpftool map update pinned array key 1 0 0 0 value 7 0 0 0
  echo TEXT $(grep -w _text /proc/kallsyms)
  echo CMDLINE $(cat /proc/cmdline)`

/** The kernel of Debian with its ELF beside it, unpacked here. */
const unpackedKernel = Effect.gen(function*() {
  const { image, release } = yield* (yield* KernelResolver).resolve(KERNEL)
  const unpacked = join(yield* scratch, "vmlinux")
  writeFileSync(unpacked, yield* vmlinuxOf(readFileSync(image), image))
  return { image, release, unpacked, source: "test" }
})

/** What a guest printed, what its dump says of the kernel, and all entries of its maps. */
const look = (kernel: KernelArtifacts, kaslr: boolean) =>
  Effect.gen(function*() {
    const consoleFile = join(yield* scratch, "console")
    const { header, maps } = yield* bootAndFreeze({
      kernel: KERNEL,
      kaslr,
      memoryMib: 256,
      cmdline: "loglevel=1", // else the kernel speaks into the lines below
      includes: ["/usr/sbin/bpftool"],
      script: SCRIPT,
      consoleFile
    })
    const readers = yield* Effect.forEach((yield* maps.list).items, maps.reader)
    const pieces = ndjsonRecords({ header, readers, programs: [], problems: [], limit: Infinity })
    const text = Buffer.concat(Array.from(pieces, (piece) => piece.slice())).toString()
    const printed = readFileSync(consoleFile, "latin1")
    return {
      text: BigInt(`0x${/^TEXT ([0-9a-f]{16})/m.exec(printed)?.[1]}`),
      cmdline: /^CMDLINE (.*)/m.exec(printed)?.[1],
      kernel: header.kernel,
      records: text.split("\n").slice(1).toSorted() // a hash has another order in each boot
    }
  }).pipe(
    Effect.scoped,
    Effect.provide(Layer.merge(KernelResolver.layerTest(kernel), Qemu.layerWith({ accelerate: "emulation" })))
  )

describe("an emulated guest", () => {
  it.scopedLive(
    "boots the unpacked kernel unless KASLR is asked for, and looks the same but for addresses",
    () =>
      Effect.gen(function*() {
        const kernel = yield* unpackedKernel
        const [fast, random] = [yield* look(kernel, false), yield* look(kernel, true)]
        assert.strictEqual(fast.text, 0xffffffff81000000n)
        assert.strictEqual(fast.kernel.kaslrOffset, "0x0")
        assert.strictEqual(BigInt(random.kernel.kaslrOffset!), random.text - 0xffffffff81000000n)
        // the 5th level is entered while a kernel unpacks itself
        assert.deepStrictEqual([fast.kernel.pageTableLevels, random.kernel.pageTableLevels], [4, 5])
        assert.strictEqual(fast.kernel.release, random.kernel.release)
        assert.strictEqual(fast.cmdline, random.cmdline)
        assert.lengthOf(fast.records.filter((line) => line.includes(`"record":"entry"`)), 8)
        assert.deepStrictEqual(fast.records, random.records)
        // an ELF may be given as the kernel itself
        const direct = yield* look({ ...kernel, image: kernel.unpacked }, true)
        assert.deepStrictEqual([direct.text, direct.records], [fast.text, fast.records])
      }).pipe(Effect.provide(HostLive)),
    240_000
  )

  it.scopedLive("is given the unpacked kernel only without KASLR", () =>
    Effect.gen(function*() {
      const resolver = KernelResolver.layerTest({ image: "/i", unpacked: "/u", release: "6.12", source: "test" })
      const specOf = (kaslr?: boolean) =>
        Effect.map(Effect.provide(prepare({ kernel: KERNEL, kaslr }), resolver), ({ spec }) => [
          spec.kernel,
          spec.unpacked
        ])
      assert.deepStrictEqual(yield* specOf(), ["/i", "/u"])
      assert.deepStrictEqual(yield* specOf(false), ["/i", "/u"])
      assert.deepStrictEqual(yield* specOf(true), ["/i", undefined])
    }).pipe(Effect.provide(HostLive)))
})
