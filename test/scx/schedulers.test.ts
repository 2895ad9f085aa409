import * as FileSystem from "@effect/platform/FileSystem"
import { assert, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import * as GuestMapAccessor from "../../src/bpf/guest/GuestMapAccessor.ts"
import { MapAccessor } from "../../src/bpf/MapAccessor.ts"
import type { MapEntry } from "../../src/bpf/MapReader.ts"
import { toJson } from "../../src/btf/render/RenderedValue.ts"
import { KernelResolver } from "../../src/core/kernels/KernelResolver.ts"
import { bootAndFreeze } from "../../src/Ktstr.ts"
import { makeInitramfs } from "../../src/kvm/guest/Initramfs.ts"
import { type Vm, VmEngine } from "../../src/kvm/spec/VmEngine.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { parseEntries, parseMaps, type PrintedEntry, PrintedTypes } from "../support/bpftool.ts"
import { parseCapture } from "../support/capture.ts"
import { HostLive, scratch } from "../support/guest.ts"
import { needsScx, scx } from "../support/scx.ts"

const here = new URL(".", import.meta.url).pathname
const capture = join(here, "../bpf-src/capture.sh")
const guest = join(here, "guest.sh")

/** What bpftool 7.1 dumps of a scheduler's maps in the terms of `parseEntries`; maps of other types are compared as listed. */
const COMPARED = ["array", "percpu_array"]

type Maps = typeof MapAccessor.Service
type Printed = ReadonlyMap<string, string>

const entriesOf = (maps: Maps, name: string): Effect.Effect<ReadonlyArray<MapEntry>, unknown> =>
  Effect.gen(function*() {
    const found = yield* maps.find(name)
    assert.strictEqual(found.length, 1, `maps called ${name}`)
    return Array.from(yield* Stream.runCollect(maps.entries(found[0])))
  })

/** The counters of a scheduler: as it prints them itself every second, and as they stand in its maps. */
const schedulers = [
  {
    program: "scx_simple",
    ops: "simple",
    printed: /^local=(\d+) global=(\d+)$/,
    counters: (maps: Maps) =>
      Effect.map(entriesOf(maps, "stats"), (entries) =>
        entries.map((entry) =>
          // without types in BTF, as u64
          "cpus" in entry
            ? entry.cpuBytes.reduce((sum, bytes) => sum + Number(Buffer.from(bytes!).readBigUInt64LE()), 0)
            : NaN
        ))
  },
  {
    program: "scx_qmap",
    ops: "qmap",
    printed: /^stats {2}: enq=(\d+) dsp=(\d+) delta=-?\d+ reenq=\d+ deq=\d+ core=\d+ enq_ddsp=(\d+)$/,
    counters: (maps: Maps) =>
      Effect.map(entriesOf(maps, "scx_qmap.bss"), ([entry]) => {
        const bss = "value" in entry ? asObject(toJson(entry.value)) : {}
        return [bss["nr_enqueued"], bss["nr_dispatched"], bss["nr_ddsp_from_enq"]].map(Number)
      })
  }
] as const

/**
 * Boot a guest whose tasks are all the scheduler's, freeze it while they work, read the scheduler's counters, let it go on,
 * and compare with the lines that the scheduler printed about them.
 */
const compareCounters = ({ counters, ops, printed, program }: typeof schedulers[number]) =>
  Effect.gen(function*() {
    const built = yield* scx
    const { image } = yield* (yield* KernelResolver).resolve(built.key)
    const initramfs = yield* makeInitramfs({
      includes: [built.scheduler(program), "/usr/sbin/bpftool", guest, capture],
      script: `. /include-files/guest.sh
        start ${program}
        kill -STOP $scheduler # it would print lines between those of the capture
        sh /include-files/capture.sh
        kill -CONT $scheduler
        for n in 1 2 3 4; do (while :; do work; sleep 0.01; done) & done
        exit 0`
    })
    const vm = yield* (yield* VmEngine).boot({ kernel: image, initramfs, cpus: 2, timeout: "3 minutes" })
    assert.strictEqual(yield* vm.awaitReady, 0, (yield* vm.consoleTail).slice(-30).join("\n"))
    assert.strictEqual(yield* vm.awaitLine(/^enabled: /), `enabled: ${ops}`)
    yield* nthLine(vm, printed, 1, (counts) => counts.every((count) => count > 0))

    const frozen = yield* Effect.scoped(Effect.gen(function*() {
      const { memory } = yield* vm.freeze
      const lines = yield* vm.consoleTail
      const kernel = yield* GuestKernel.fromMemory(memory, "the guest")
      assert.strictEqual(kernel.release, built.release)
      const maps = yield* Effect.provideService(GuestMapAccessor.make, GuestKernel, kernel)
      yield* compareLists(maps, parseCapture(lines.join("\n")))
      return { before: lines.flatMap((line) => countsOf(printed, line)), counts: yield* counters(maps) }
    }))
    // when the guest was stopped, one line may have been on its way to us and another in the making
    const after = yield* nthLine(vm, printed, frozen.before.length + 3, () => true)

    const before = frozen.before[frozen.before.length - 1]
    assert.strictEqual(frozen.counts.length, before.length)
    for (const [index, count] of frozen.counts.entries()) {
      assert.isAtLeast(count, before[index])
      assert.isAtMost(count, after[index])
    }
    assert.notDeepEqual(after, before, "the scheduler went on after the thaw")
  }).pipe(Effect.scoped, Effect.provide(HostLive))

const asObject = (json: unknown): Readonly<Record<string, unknown>> =>
  typeof json === "object" && json !== null ? Object.fromEntries(Object.entries(json)) : {}

/** The numbers of a line that a scheduler printed, or nothing. */
const countsOf = (printed: RegExp, line: string): ReadonlyArray<ReadonlyArray<number>> => {
  const found = printed.exec(line)
  return found === null ? [] : [found.slice(1).map(Number)]
}

/** The numbers of the n-th line, past or to come, that the scheduler printed and that is as wanted. */
const nthLine = (vm: Vm, printed: RegExp, n: number, wanted: (counts: ReadonlyArray<number>) => boolean) =>
  vm.console.pipe(
    Stream.mapConcat((line) => countsOf(printed, line)),
    Stream.filter(wanted),
    Stream.take(n),
    Stream.runLast,
    Effect.map(Option.getOrThrow)
  )

/** Which maps and programs there are, as bpftool listed them. */
const compareLists = (maps: Maps, printed: Printed) =>
  Effect.gen(function*() {
    const ours = yield* maps.list
    assert.deepStrictEqual(ours.problems, [])
    assert.deepStrictEqual(
      ours.items.map(({ btfId, flags, id, keySize, maxEntries, name, type, valueSize }) => (
        { id, name, type, flags, keySize, valueSize, maxEntries, btfId }
      )),
      parseMaps(printed.get("maps.json")!)
    )
    const programs = yield* maps.programs
    assert.deepStrictEqual(programs.problems, [])
    const theirs: ReadonlyArray<{ id: number; name: string; type: string }> = JSON.parse(printed.get("progs.json")!)
    assert.deepStrictEqual(
      programs.items.map(({ id, name, type }) => ({ id, name, type })),
      theirs.map(({ id, name, type }) => ({ id, name, type }))
    )
    assert.isTrue(ours.items.some(({ type }) => type === "struct_ops"))
    assert.isTrue(theirs.some(({ type }) => type === "struct_ops"))
  })

/**
 * Boot a guest where only tasks that ask for it are the scheduler's, let them end, and compare every map with what bpftool
 * printed of it inside.
 */
const compareMaps = Effect.gen(function*() {
  const built = yield* scx
  const directory = yield* scratch
  const asExt = join(directory, "as-ext")
  yield* Effect.promise(() => promisify(execFile)("gcc", ["-o", asExt, join(here, "as-ext.c")]))
  const consoleFile = join(directory, "console")
  const { maps } = yield* bootAndFreeze({
    kernel: built.key,
    cpus: 2,
    includes: [built.scheduler("scx_qmap"), asExt, "/usr/sbin/bpftool", guest, capture],
    // its timer goes on writing into .bss what the last second was like, until that is always the same
    script: `. /include-files/guest.sh
      start scx_qmap -p
      for n in 1 2 3 4 5 6; do
        as-ext sh -c '. /include-files/guest.sh; work; work; work; work; work' &
        tasks="$tasks $!"
      done
      wait $tasks
      bss() { bpftool map dump name scx_qmap.bss -j; }
      settled() { before="$(bss)"; sleep 2; [ "$(bss)" = "$before" ]; }
      await settled
      kill -STOP $scheduler
      sh /include-files/capture.sh`,
    consoleFile,
    timeout: "3 minutes"
  })
  const console = yield* (yield* FileSystem.FileSystem).readFileString(consoleFile)
  assert.match(console, /^stats {2}: enq=[1-9]/m)
  const printed = parseCapture(console)
  yield* compareLists(maps, printed)

  const compared: Array<string> = []
  for (const theirs of parseMaps(printed.get("maps.json")!)) {
    if (!COMPARED.includes(theirs.type)) continue
    const [info] = yield* maps.find(String(theirs.id))
    compared.push(info.name)
    const types = theirs.btfId === null ? undefined : new PrintedTypes(printed.get(`btf-${theirs.btfId}.json`)!)
    const expected = parseEntries(printed.get(`map-${theirs.id}.json`)!, theirs, types)
    const ours = Array.from(yield* Stream.runCollect(maps.entries(info)), asPrinted)
    if (info.name === "monitor_timer") {
      // bpf(2) blanks a struct bpf_timer (kernel/bpf/syscall.c bpf_map_copy_value, v6.12); memory holds its pointer
      assert.deepStrictEqual(expected.map(({ valuesHex }) => valuesHex), [["0".repeat(32)]])
      assert.match(ours[0].valuesHex[0], /^[0-9a-f]{14}ff0{16}$/)
    } else assert.deepStrictEqual(ours, expected, `map ${info.id} (${info.name})`)
  }
  assert.includeMembers(compared, ["cpu_ctx_stor", "scx_qmap.rodata", "scx_qmap.bss", "scx_qmap.data"])
}).pipe(Effect.scoped, Effect.provide(HostLive))

const hexOf = (bytes: Uint8Array | undefined): string => Buffer.from(bytes!).toString("hex")

/** An entry of ours in the shape of what bpftool printed. */
const asPrinted = (entry: MapEntry): PrintedEntry =>
  "cpus" in entry
    ? {
      keyHex: hexOf(entry.keyBytes),
      valuesHex: entry.cpuBytes.map(hexOf),
      plain: { key: toJson(entry.key), cpus: entry.cpus.map((value) => toJson(value!)) }
    }
    : {
      keyHex: hexOf(entry.keyBytes),
      valuesHex: [hexOf(entry.valueBytes)],
      plain: { key: toJson(entry.key), value: toJson(entry.value) }
    }

describe("schedulers on the built kernel", () => {
  beforeEach(needsScx)
  for (const scheduler of schedulers) {
    const { program } = scheduler
    it.live(
      `${program} has all tasks: its counters are between those that it printed before the freeze and after the thaw`,
      () => compareCounters(scheduler),
      240_000
    )
  }
  it.live(
    "scx_qmap, its tasks over: every map that is read equals what bpftool printed inside the guest",
    () => compareMaps,
    240_000
  )
})
