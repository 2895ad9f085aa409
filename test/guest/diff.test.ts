import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as GuestMapAccessor from "../../src/bpf/guest/GuestMapAccessor.ts"
import { listPrograms } from "../../src/bpf/guest/programs/ProgramWalk.ts"
import { writeMaps } from "../../src/bpf/guest/write/MapWrite.ts"
import { DUMP_VERSION, type Header } from "../../src/bpf/Report.ts"
import { parseDump } from "../../src/bpf/report/DiffInput.ts"
import { jsonDocument } from "../../src/bpf/report/DumpWriter.ts"
import { diffSnapshots, sideOfDocument, sideOfReaders } from "../../src/bpf/report/SnapshotDiff.ts"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import { makeInitramfs } from "../../src/kvm/guest/Initramfs.ts"
import { VmEngine } from "../../src/kvm/spec/VmEngine.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { compileBpf, HostLive, scratch } from "../support/guest.ts"

/** Twenty steps, then ten more when the variable `go` has been set from outside. */
const SCRIPT = `
set -e
pins=/sys/fs/bpf
dd if=/dev/zero of=/tmp/in bs=64 count=1 2>/dev/null
sysctl -q -w kernel.bpf_stats_enabled=1
bpftool prog loadall /include-files/diff.bpf.o $pins/d pinmaps $pins/m
run() { taskset -c $1 bpftool prog run pinned $pins/d/step data_in /tmp/in repeat $2 >/dev/null; }
run 0 20
(until bpftool -j map dump name diff.bss | grep -q '"go": *1'; do sleep 0.1; done
run 0 4; run 1 6; echo STEPPED) &
`

/** What the steps must have changed. */
const EXPECTED = {
  runs: [20, 30, 10],
  down: [-60, -90, -30],
  added: Array.from({ length: 8 }, (_, n) => 23 + n),
  removed: Array.from({ length: 8 }, (_, n) => 13 + n)
}

describe("two looks at one guest", () => {
  it.effect("differ by what its program did between them", () =>
    Effect.gen(function*() {
      const { image } = yield* (yield* KernelResolver).resolve("debian:6.12-cloud")
      const objects = yield* compileBpf(yield* scratch, "diff")
      const initramfs = yield* makeInitramfs({ includes: ["/usr/sbin/bpftool", ...objects], script: SCRIPT })
      const vm = yield* (yield* VmEngine).boot({ kernel: image, initramfs, cpus: 2, timeout: "2 minutes" })
      assert.strictEqual(yield* vm.awaitReady, 0)
      /** A look at the frozen guest; `at` stands for when, so that the rates are known. */
      const look = (at: string) =>
        Effect.gen(function*() {
          const kernel = yield* GuestKernel.fromMemory((yield* vm.freeze).memory)
          const maps = yield* Effect.provideService(GuestMapAccessor.make, GuestKernel, kernel)
          const programs = yield* Effect.provideService(listPrograms, GuestKernel, kernel)
          const header: Header = {
            schema: "single",
            version: DUMP_VERSION,
            source: { kind: "vm", engine: "qemu", kernel: "debian:6.12-cloud" },
            kernel: {
              release: kernel.release,
              pageTableLevels: 5,
              kaslrOffset: String(kernel.kaslrOffset),
              possibleCpus: 2
            },
            freeze: { at, millis: 1, cpus: 2 }
          }
          const write = Effect.provideService(writeMaps([{ path: "go", value: 1 }]), GuestKernel, kernel)
          const readers = yield* Effect.forEach((yield* maps.list).items, maps.reader)
          return { dump: { header, readers, programs: programs.items, problems: [], limit: Infinity }, write }
        })
      const kept = yield* Effect.scoped(Effect.gen(function*() {
        const { dump, write } = yield* look("2026-01-01T00:00:00Z")
        const text = Buffer.concat(Array.from(jsonDocument(dump), (piece) => piece.slice())).toString()
        yield* write
        return text
      }))
      yield* vm.awaitLine(/^STEPPED/)
      const first = sideOfDocument(yield* parseDump(kept, "the first look"))
      const found = yield* Effect.scoped(Effect.gen(function*() {
        const { dump: { header, programs, readers } } = yield* look("2026-01-01T00:00:05Z")
        const second = sideOfReaders(header, readers, programs)
        return Array.from(yield* Stream.runCollect(diffSnapshots(first, second)))
      }))
      const of = (map: string) => found.filter((change) => "name" in change && change.name === map)
      const [runsBefore, runsAfter, runs] = EXPECTED.runs
      const [downBefore, downAfter, down] = EXPECTED.down
      const field = (
        path: string,
        before: number,
        after: number,
        delta: number,
        cpu: number | "all" | null = null
      ) => ({
        path,
        cpu,
        before,
        after,
        delta,
        rate: delta / 5
      })
      assert.deepStrictEqual(of("diff.data").map((change) => "fields" in change ? change.fields : change), [
        [field("state.runs", runsBefore, runsAfter, runs), field("state.down", downBefore, downAfter, down)]
      ])
      assert.deepStrictEqual(of("diff.bss").map((change) => "fields" in change ? change.fields : change), [
        [field("go", 0, 1, 1)]
      ])
      assert.deepStrictEqual(of("each_cpu").map((change) => "fields" in change ? change.fields : change), [
        [field("", 20, 24, 4, 0), field("", 0, 6, 6, 1), field("", 20, 30, 10, "all")]
      ])
      const keys = (kind: string) =>
        of("window").flatMap((change) => change.change === kind && "key" in change ? [Number(change.key)] : [])
          .toSorted((a, b) => a - b)
      assert.deepStrictEqual(keys("entryAdded"), EXPECTED.added)
      assert.deepStrictEqual(keys("entryRemoved"), EXPECTED.removed)
      assert.isTrue(of("window").every((change) => !("value" in change) || change.value === Number(change.key) ** 2))
      const [step] = of("step")
      assert.deepInclude("fields" in step ? step.fields.find(({ path }) => path === "runs") : step, {
        delta: 10,
        rate: 2
      })
      assert.deepStrictEqual(found.filter(({ change }) => change === "problem"), [])
    }).pipe(Effect.scoped, Effect.provide(HostLive)), 240_000)
})
