import * as NodeContext from "@effect/platform-node/NodeContext"
import { assert, describe, it, layer } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestContext from "effect/TestContext"
import * as Tracer from "effect/Tracer"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { watchMaps } from "../../src/bpf/report/MapWatch.ts"
import { diffSnapshots, sideOfDocument } from "../../src/bpf/report/SnapshotDiff.ts"
import { Progress } from "../../src/core/Progress.ts"
import * as Ktstr from "../../src/Ktstr.ts"
import { bootCount } from "../../src/kvm/guest/BootedVm.ts"
import { saveImage, saveVmcore } from "../../src/memory/SaveImage.ts"
import { held } from "../kvm/support.ts"

const KERNEL = "debian:6.12-cloud"
const host = Ktstr.layer.pipe(Layer.provideMerge(NodeContext.layer))

/** A guest with one map, of bytes: bpftool makes it, and changes it when it is asked to. */
const options: Ktstr.BootOptions = {
  kernel: KERNEL,
  memoryMib: 256,
  includes: ["/usr/sbin/bpftool"],
  script: `set -e
    bpftool map create /sys/fs/bpf/counts type hash key 1 value 2 entries 8 name counts
    bpftool map update pinned /sys/fs/bpf/counts key 1 value 10 0`
}
const put = (key: number, value: number) => `bpftool map update pinned /sys/fs/bpf/counts key ${key} value ${value} 0`
const all = <A, E, R>(stream: Stream.Stream<A, E, R>) => Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

/** Spans that end while this runs, by name, with their attributes. */
const traced = <A, E, R>(work: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const { context, span } = yield* Effect.tracer
    const spans: Array<Tracer.Span> = []
    const tracer = Tracer.make({
      span: (...given) => {
        const made = span(...given)
        spans.push(made)
        return made
      },
      context
    })
    return { result: yield* Effect.withTracer(work, tracer), spans }
  })

layer(Layer.provideMerge(Ktstr.layerVm(options), host), { excludeTestServices: true, timeout: "4 minutes" })(
  "one guest of an app, shared by all that use Vm",
  (it) => {
    it.scoped("is frozen twice, and dumps of the freezes differ in what ran between them", () =>
      Effect.gen(function*() {
        const vm = yield* Ktstr.Vm
        const looked = Effect.scoped(Effect.flatMap(Ktstr.freezeAndAttach(vm, KERNEL), Ktstr.dump))
        const first = yield* looked
        const ran = yield* vm.exec(`${put(2, 20)}; echo done; exit 3`)
        assert.deepStrictEqual([ran.status, ran.output], [3, "done\n"])
        const second = yield* looked
        const changes = yield* all(diffSnapshots(sideOfDocument(first), sideOfDocument(second)))
        assert.deepStrictEqual(
          changes.map((one) => "name" in one ? [one.change, one.name] : [one.change]),
          [["entryAdded", "counts"]]
        )
        assert.isAbove(Date.parse(second.freeze?.at ?? ""), Date.parse(first.freeze?.at ?? ""))
      }))

    it.scoped("gives rows by Schemas, and none of a freeze that is over", () =>
      Effect.gen(function*() {
        const vm = yield* Ktstr.Vm
        yield* vm.exec(put(3, 30))
        const [rows, later] = yield* Effect.scoped(Effect.gen(function*() {
          const { maps } = yield* Ktstr.freezeAndAttach(vm, KERNEL)
          const [map] = yield* maps.find("counts")
          const typed = maps.entriesAs(map, { key: Schema.Literal("01", "02", "03"), value: Schema.String })
          return [yield* all(typed), typed] as const
        }))
        assert.deepInclude(rows, { key: "03", value: "1e00" })
        const error = yield* Effect.flip(Stream.runDrain(later))
        assert.match(error.message, /: unreadable: .*memory that was released: its scope has closed/)
      }))

    it.scoped("is watched: the first look has all entries, the next what changed", () =>
      Effect.gen(function*() {
        const vm = yield* Ktstr.Vm
        const readers = Effect.gen(function*() {
          const { maps } = yield* Ktstr.freezeAndAttach(vm, KERNEL)
          return yield* Effect.forEach(yield* maps.find("counts"), maps.reader)
        })
        const ticks = yield* watchMaps(readers, "10 millis").pipe(
          Stream.zipWithIndex,
          Stream.mapEffect(([tick, index]) =>
            index === 0 ? Effect.as(vm.exec(put(4, 40)), tick) : Effect.succeed(tick)
          ),
          Stream.takeUntil(({ changes }) => changes.some((one) => "key" in one && one.key === "04")),
          all
        )
        assert.isAtLeast(ticks.length, 2)
      }))

    it.scoped("is saved as an image, and as a core, that say the same", () =>
      Effect.gen(function*() {
        const directory = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-library-"))),
          (path) => Effect.sync(() => rmSync(path, { recursive: true }))
        )
        const path = join(directory, "image")
        const snapshot = yield* Ktstr.freezeAndAttach(yield* Ktstr.Vm, KERNEL)
        yield* saveImage(snapshot.kernel.memory, path)
        const { registers } = yield* Effect.flatMap(Ktstr.Vm, (vm) => vm.freeze)
        const cpus = yield* registers
        yield* saveVmcore(snapshot.kernel.memory, `${path}.core`, cpus)
        for (const file of [path, `${path}.core`]) {
          const image = yield* Ktstr.openImage(file)
          assert.deepStrictEqual((yield* Ktstr.dump(image)).maps, (yield* Ktstr.dump(snapshot)).maps)
          assert.deepStrictEqual(image.header.kernel, snapshot.header.kernel)
        }
        // each CPU stands in the kernel, with the page tables of a task
        assert.lengthOf(cpus, 1)
        for (const cpu of cpus) {
          const { control, general } = "x" in cpu ? assert.fail("registers of arm64") : cpu
          assert.match(snapshot.kernel.symbolAt(general.rip)?.name ?? "", /^\w+$/)
          assert.isTrue(snapshot.kernel.memory.has(Number(control.cr3 & ~0xfffn), 4096))
        }
      }))

    it.scoped("lives in real time under a test's clock: stamps and limits are those of the host", () =>
      Effect.gen(function*() {
        const vm = yield* Ktstr.Vm
        const before = Date.now()
        const frozen = yield* Effect.scoped(Ktstr.freezeAndAttach(vm, KERNEL))
        assert.isAtLeast(Date.parse(frozen.header.freeze?.at ?? ""), before)
        assert.strictEqual(yield* Clock.currentTimeMillis, 0, "the caller's clock is the test's")
        const late = yield* Effect.flip(vm.exec("sleep 100", { timeout: "200 millis" }))
        assert.match(late.message, /it did not finish within 0.2 s/)
        // behind that one in the guest: its command is over at once, its shell sleeps on
        yield* vm.awaitReady
      }).pipe(Effect.provide(TestContext.TestContext)))
  }
)

describe("an app of several engines, boots and interruptions", () => {
  /** The library's engine with a setting of the app's own. */
  const quietEngine = Layer.effect(
    Ktstr.VmEngine,
    Effect.map(Ktstr.VmEngine, ({ boot }) => ({
      boot: (spec) => boot({ ...spec, cmdline: `${spec.cmdline ?? ""} quiet`, timeout: "3 seconds" })
    }))
  )
  const ownHost = quietEngine.pipe(Layer.provideMerge(host))

  it.scoped(
    "has its engine's settings, fixed names of spans, progress apart from them, and a limit in real time",
    () =>
      Effect.gen(function*() {
        const labels: Array<string> = []
        const around = <A, E, R>(label: string, work: Effect.Effect<A, E, R>) =>
          Effect.suspend(() => {
            labels.push(label)
            return work
          })
        const boots = Effect.map(Metric.value(Metric.tagged(bootCount, "engine", "qemu")), ({ count }) => count)
        const before = yield* boots
        const { result: error, spans } = yield* traced(
          Ktstr.bootAndFreeze({ kernel: KERNEL, memoryMib: 192, script: "cat /proc/cmdline; sleep 1000" }).pipe(
            Effect.scoped,
            Effect.flip,
            Effect.provideService(Progress, { around })
          )
        )
        assert.strictEqual(error._tag, "NotReady")
        assert.strictEqual((yield* boots) - before, 1)
        const names = spans.map(({ name }) => name).filter((name) => /^(Ktstr|Initramfs|vm)\./.test(name))
        assert.deepStrictEqual(names.toSorted(), [
          "Initramfs.make",
          "Ktstr.boot",
          "Ktstr.bootAndFreeze",
          "Ktstr.initramfs",
          "Ktstr.prepare",
          "Ktstr.resolve",
          "Ktstr.run",
          "vm.boot"
        ])
        const attributes = spans.find(({ name }) => name === "vm.boot")?.attributes
        assert.deepInclude(Object.fromEntries(attributes ?? []), { cpus: 1, memoryMib: 192, requested: "auto" })
        assert.deepStrictEqual(labels.map((label) => label.replace(/6\.12\.\S+/, "RELEASE")), [
          `kernel ${KERNEL}`,
          "initramfs",
          "boot RELEASE and run the script"
        ])
      }).pipe(Effect.provide(ownHost)),
    240_000
  )

  it.scopedLive(
    "holds nothing after an interruption at any moment, or a time limit of its own",
    () =>
      Effect.gen(function*() {
        const before = yield* held
        const boot = Effect.scoped(Ktstr.bootAndFreeze({ kernel: KERNEL, memoryMib: 192, script: "true" }))
        for (const millis of [0, 30, 400]) {
          const fiber = yield* Effect.fork(boot)
          yield* Effect.sleep(millis)
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(yield* held, before)
        }
        assert.strictEqual((yield* Effect.flip(Effect.timeout(boot, "300 millis")))._tag, "TimeoutException")
        assert.deepStrictEqual(yield* held, before)
      }).pipe(Effect.provide(host)),
    240_000
  )

  it.scopedLive(
    "gets an error of its own for each wrong setting, in the library's words",
    () =>
      Effect.gen(function*() {
        const folder = yield* Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-library-"))),
          (path) => Effect.sync(() => rmSync(path, { recursive: true }))
        )
        const emptyCache = ConfigProvider.fromMap(new Map([["KTSTR_CACHE_DIR", join(folder, "cache")]]))
        const failed = (given: Partial<Ktstr.BootOptions>) =>
          Effect.scoped(Effect.flip(Ktstr.boot({ kernel: KERNEL, ...given })))
        const wrong: ReadonlyArray<readonly [Partial<Ktstr.BootOptions>, string, RegExp]> = [
          [{ kernel: "what is this" }, "KernelIdInvalid", /^kernel id "what is this": not a kernel/],
          [{ kernel: "/no/kernel" }, "KernelNotFound", /\/no\/kernel/],
          [{ kernel: "/etc/hostname" }, "KernelNotFound", /\/etc\/hostname/],
          [{ includes: ["/no/such/file"] }, "IncludeError", /\/no\/such\/file/],
          [{ modules: ["nonesuch"] }, "ModuleMissing", /nonesuch/],
          [{ memoryMib: 16 }, "VmBootError", /16 MiB of memory cannot hold .*; set memoryMib to \d+ or more$/],
          [{ memoryMib: 999_999_999 }, "VmBootError", /999999999 MiB of memory are more than .*; lower memoryMib$/],
          [{ cpus: 0 }, "VmBootError", /a VM cannot have 0 CPUs/],
          [{ cpus: 1.5 }, "VmBootError", /a VM cannot have 1.5 CPUs/],
          [{ disks: [{ path: "/no/disk" }] }, "VmBootError", /\/no\/disk cannot be opened \(ENOENT\)/],
          [{ timeout: "-1 seconds" }, "VmBootError", /timeout is -1 seconds, not a time; set timeout to/],
          [{ consoleFile: "/no/dir/x" }, "VmBootError", /ENOENT; set consoleFile to a writable path$/],
          [{ cpuModel: "nonsense" }, "VmBootError", /unable to find CPU model 'nonsense'/]
        ]
        for (const [given, tag, message] of wrong) {
          const error = yield* failed(given)
          assert.strictEqual(error._tag, tag, error.message)
          assert.match(error.message, message)
          assert.notMatch(
            error.message.replace(/`[^`]*`/g, ""),
            /--[a-z]/,
            "the command's flags are not the library's words"
          )
        }
        const uncached = yield* Effect.withConfigProvider(failed({ kernel: "6.12" }), emptyCache)
        assert.strictEqual(uncached._tag, "KernelNotFound")
        const script = yield* failed({ memoryMib: 192, script: "echo one; echo two; exit 7" })
        assert.strictEqual(
          script.message,
          "the script in the guest failed with exit status 7; it last said: one | two"
        )
      }).pipe(Effect.provide(host)),
    240_000
  )
})
