import * as NodeContext from "@effect/platform-node/NodeContext"
import * as FileSystem from "@effect/platform/FileSystem"
import { assert, layer } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Runtime from "effect/Runtime"
import * as TestClock from "effect/TestClock"
import { execFileSync, spawnSync } from "node:child_process"
import { randomUUID } from "node:crypto"
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { BtfLoader } from "../../src/btf/BtfLoader.ts"
import { kernelImage } from "../support/kernels.ts"
import { BlobWriter } from "./BlobWriter.ts"

/** The BTF of one struct whose name tells it; `more` structs make it longer. */
const blob = (name: string, more = 0): Uint8Array => {
  const writer = new BlobWriter()
  const int = writer.int("int", 4)
  writer.struct(name, 4, [{ name: "member", type: int, bits: 0 }])
  for (let n = 0; n < more; n++) writer.struct(`more_${n}`, 4, [{ name: "m", type: int, bits: 0 }])
  return writer.bytes()
}

/** A linked ELF file that holds `btf` and `padding` bytes besides; `--build-id=sha1` is what the kernel's link uses. */
const linked = (directory: string, btf: Uint8Array, buildId: "sha1" | "none", padding = 0): Buffer => {
  const at = (name: string) => join(directory, name)
  writeFileSync(at("in.btf"), btf)
  writeFileSync(
    at("in.s"),
    `.globl _start\n_start: ret\n.section .BTF,"",@progbits\n.incbin "${at("in.btf")}"\n`
      + (padding === 0 ? "" : `.section .debug_info,"",@progbits\n.zero ${padding}\n`)
  )
  execFileSync("gcc", ["-nostdlib", "-static", `-Wl,--build-id=${buildId}`, at("in.s"), "-o", at("out")])
  const elf = readFileSync(at("out"))
  for (const name of ["in.btf", "in.s", "out"]) rmSync(at(name))
  return elf
}

/** A cache, and a directory outside of it, that another user may enter; they go with the scope. */
const places = Effect.acquireRelease(
  Effect.sync(() => {
    const top = realpathSync(mkdtempSync(join(tmpdir(), "ktstr-sidecar-")))
    const [root, entry, outside] = [join(top, "cache"), join(top, "cache", "entry"), join(top, "outside")]
    mkdirSync(entry, { recursive: true })
    mkdirSync(outside)
    chmodSync(top, 0o755)
    return { top, root, entry, outside, vmlinux: join(entry, "vmlinux"), sidecar: join(entry, "vmlinux.btf") }
  }),
  ({ top }) => Effect.sync(() => rmSync(top, { recursive: true }))
)

const environment = (cache: string | undefined) =>
  Effect.withConfigProvider(
    ConfigProvider.fromMap(new Map(cache === undefined ? [] : [["KTSTR_CACHE_DIR", cache]]))
  )

/** What a load gave: the name of the first struct; and the warnings that it logged. */
const loaded = (path: string, cache: string | undefined) =>
  Effect.gen(function*() {
    const warnings: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel.label === "WARN") warnings.push(String(message))
    })
    const btf = yield* Effect.flatMap(BtfLoader, (loader) => loader.load(path)).pipe(
      environment(cache),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger))
    )
    return { name: btf.nameOf(2), warnings }
  })

const Live = Layer.provideMerge(BtfLoader.layer, NodeContext.layer)

/** As a user who may not write what root owns. The tests run as root or as one user; root can step down. */
const asNobody = <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  process.getuid?.() !== 0 ? work : Effect.acquireUseRelease(
    Effect.sync(() => process.seteuid?.(65534)),
    () => work,
    () => Effect.sync(() => process.seteuid?.(0))
  )

/** Bytes that this process has read from files until now. */
const bytesRead = (): number => Number(/^rchar: (\d+)/.exec(readFileSync("/proc/self/io", "latin1"))?.[1])

/** Bytes that a second load reads. */
const readBy = (path: string, cache: string) =>
  Effect.gen(function*() {
    yield* loaded(path, cache)
    const before = bytesRead()
    yield* loaded(path, cache)
    return bytesRead() - before
  })

layer(Live)("a sidecar", (it) => {
  it.scoped("is BTF for other programs too, under the file's whole name", () =>
    Effect.gen(function*() {
      const { entry, outside, root } = yield* places
      const btf = blob("one")
      const path = join(entry, "vmlinux-6.12.elf")
      writeFileSync(path, linked(outside, btf, "sha1"))
      assert.strictEqual((yield* loaded(path, root)).name, "one")
      assert.deepStrictEqual(readdirSync(entry), ["vmlinux-6.12.elf", "vmlinux-6.12.elf.btf"])
      const sidecar = `${path}.btf`
      assert.deepStrictEqual(new Uint8Array(readFileSync(sidecar).subarray(0, btf.length)), btf)
      writeFileSync(join(outside, "plain.btf"), btf)
      for (const [program, ...args] of [["bpftool", "btf", "dump", "file"], ["pahole", "-F", "btf"]]) {
        const print = (file: string) => execFileSync(program, [...args, file], { encoding: "utf8" })
        assert.strictEqual(print(sidecar), print(join(outside, "plain.btf")))
        assert.include(print(sidecar), "one")
      }
      assert.strictEqual((yield* loaded(sidecar, root)).name, "one")
      assert.deepStrictEqual(readdirSync(entry), ["vmlinux-6.12.elf", "vmlinux-6.12.elf.btf"], "raw BTF gets none")
    }))

  it.scoped("spares reading the kernel", () =>
    Effect.gen(function*() {
      const { entry, outside, root, vmlinux } = yield* places
      const padding = 32 * 2 ** 20
      writeFileSync(vmlinux, linked(outside, blob("big"), "sha1", padding))
      assert.isBelow(yield* readBy(vmlinux, root), 256 * 1024)
      const image = join(entry, "bzImage")
      copyFileSync(yield* kernelImage("6.12"), image)
      assert.isBelow(yield* readBy(image, root), statSync(`${image}.btf`).size + 256 * 1024)
    }), 120_000)

  it.scoped("is not made where a file has no build id: nothing would tell its states apart", () =>
    Effect.gen(function*() {
      const { entry, outside, root, vmlinux } = yield* places
      writeFileSync(vmlinux, linked(outside, blob("nameless"), "none"))
      assert.deepStrictEqual(yield* loaded(vmlinux, root), { name: "nameless", warnings: [] })
      assert.deepStrictEqual(readdirSync(entry), ["vmlinux"])
    }))

  it.scoped("is judged anew in each of many loads at once, also in those broken off", () =>
    Effect.gen(function*() {
      const { entry, outside, root, vmlinux } = yield* places
      writeFileSync(vmlinux, linked(outside, blob("one", 200), "sha1"))
      const results = yield* Effect.all(Array.from({ length: 8 }, () => loaded(vmlinux, root)), {
        concurrency: "unbounded"
      })
      for (const result of results) assert.deepStrictEqual(result, { name: "one", warnings: [] })
      assert.deepStrictEqual(readdirSync(entry), ["vmlinux", "vmlinux.btf"])
      const whole = readFileSync(join(entry, "vmlinux.btf"))
      for (let steps = 0; steps < 40; steps++) {
        rmSync(join(entry, "vmlinux.btf"), { force: true })
        const fiber = yield* Effect.fork(loaded(vmlinux, root))
        for (let step = 0; step < steps; step++) yield* Effect.promise(() => new Promise(setImmediate))
        yield* Fiber.interrupt(fiber)
        const left = readdirSync(entry)
        if (left.length > 1) assert.deepStrictEqual(left, ["vmlinux", "vmlinux.btf"])
        if (left.length > 1) assert.deepStrictEqual(readFileSync(join(entry, "vmlinux.btf")), whole)
      }
    }))

  it.scoped("is not left by a path that leads nowhere", () =>
    Effect.gen(function*() {
      const { entry, root, top } = yield* places
      const path = relative(process.cwd(), join(entry, "no", "such", "vmlinux"))
      const error = yield* Effect.flip(loaded(path, root))
      assert.strictEqual(error.message, `${path}: no such file`)
      assert.deepStrictEqual(readdirSync(top, { recursive: true }).toSorted(), ["cache", "cache/entry", "outside"])
    }))

  it.scoped("says why, when it is damaged or cannot be written", () =>
    Effect.gen(function*() {
      const { entry, outside, root, sidecar, vmlinux } = yield* places
      writeFileSync(vmlinux, linked(outside, blob("one", 20), "sha1"))
      assert.deepStrictEqual((yield* loaded(vmlinux, root)).warnings, [])
      const good = readFileSync(sidecar)
      const late = Buffer.from(good)
      late[good.length >> 1] ^= 1
      for (
        const [bytes, why] of [
          [Buffer.from("\x7fELF"), "it does not start with 9f eb"],
          [Buffer.alloc(0), "it does not start with 9f eb"],
          [good.subarray(0, -1), "no record of its file ends it"],
          [Buffer.from(blob("other")), "no record of its file ends it"],
          [late, "its checksum does not match"]
        ] as const
      ) {
        writeFileSync(sidecar, bytes)
        const { name, warnings } = yield* loaded(vmlinux, root)
        assert.strictEqual(name, "one")
        assert.deepStrictEqual(warnings, [
          `${sidecar} is damaged: ${why}; the BTF is read from its kernel again, and the sidecar replaced`
        ])
        assert.deepStrictEqual(readFileSync(sidecar), good)
        assert.deepStrictEqual((yield* loaded(vmlinux, root)).warnings, [])
      }
      rmSync(sidecar)
      chmodSync(entry, 0o555)
      const { name, warnings } = yield* asNobody(loaded(vmlinux, root))
      assert.strictEqual(name, "one")
      assert.strictEqual(warnings.length, 1)
      assert.match(warnings[0], /vmlinux\.btf cannot be written: .*permission denied.*; the next load extracts/)
      assert.deepStrictEqual(readdirSync(entry), ["vmlinux"])
      chmodSync(entry, 0o755)
    }))

  it.scoped("sweeps away what killed writers left, and nothing that somebody still writes", () =>
    Effect.gen(function*() {
      const { entry, outside, root, sidecar, vmlinux } = yield* places
      writeFileSync(vmlinux, linked(outside, blob("one"), "sha1"))
      const { pid: gone } = spawnSync("true")
      const hours = (ago: number) => Date.now() / 1000 - ago * 3600
      const left = (path: string, ago: number): string => {
        writeFileSync(path, "half")
        utimesSync(path, hours(ago), hours(ago))
        return path
      }
      const temporary = (pid: number, of = sidecar): string => `${of}.${pid}.${randomUUID()}.tmp`
      left(temporary(gone), 0)
      left(temporary(process.pid), 2)
      const kept = [
        left(temporary(process.pid), 0.5),
        left(temporary(gone, join(entry, "another.btf")), 2),
        left(`${sidecar}.notes.tmp`, 2)
      ]
      yield* TestClock.setTime(Date.now())
      assert.deepStrictEqual((yield* loaded(vmlinux, root)).warnings, [])
      assert.sameMembers(readdirSync(entry).map((name) => join(entry, name)), [vmlinux, sidecar, ...kept])
    }))

  it.scoped(
    "changes no answer, whatever happens to the files, the links and the environment",
    () =>
      Effect.gen(function*() {
        const { outside: workshop } = yield* places
        const kernels = Object.fromEntries(
          (["aaa", "bbb", "ccccc", "nameless"] as const).map((name) => [
            name,
            linked(workshop, blob(name), name === "nameless" ? "none" : "sha1")
          ])
        )
        assert.strictEqual(kernels["aaa"].length, kernels["bbb"].length)
        const runtime = yield* Effect.runtime<BtfLoader | FileSystem.FileSystem>()
        yield* Effect.promise(() =>
          FastCheck.assert(
            FastCheck.asyncProperty(
              FastCheck.constantFrom(...NAMES),
              FastCheck.array(step, { maxLength: 14 }),
              async (first, steps) => {
                await Runtime.runPromise(runtime)(Effect.scoped(live(kernels, first, steps)))
              }
            ),
            { numRuns: 150 }
          )
        )
      }),
    120_000
  )
})

const NAMES = ["aaa", "bbb", "ccccc", "nameless"] as const

/** Seconds before now; few, so that times meet. */
const ago = FastCheck.constantFrom(0, 1, 100, -100)
const kernel = FastCheck.constantFrom(...NAMES)
const often = <A>(usual: A, ...others: ReadonlyArray<A>) =>
  FastCheck.oneof(
    { weight: 3, arbitrary: FastCheck.constant(usual) },
    { weight: 1, arbitrary: FastCheck.constantFrom(usual, ...others) }
  )
const step = FastCheck.oneof(
  {
    weight: 5,
    arbitrary: FastCheck.record({
      do: FastCheck.constant("load" as const),
      by: often("name", "link from outside", "link to outside", "relative name", "linked directory"),
      cache: often("the cache", "a link to it", "another", "none", "missing"),
      mayWrite: often(true, false)
    })
  },
  {
    weight: 3,
    arbitrary: FastCheck.record({
      do: FastCheck.constant("rewrite" as const),
      as: kernel,
      /** Keep the time that the file had, as a rewrite within one tick of the clock does. */
      sameTime: FastCheck.boolean()
    })
  },
  FastCheck.record({ do: FastCheck.constant("touch" as const), sidecar: FastCheck.boolean(), ago }),
  FastCheck.record({
    do: FastCheck.constant("flip" as const),
    at: FastCheck.nat(10_000),
    mask: FastCheck.integer({ min: 1, max: 255 })
  }),
  FastCheck.record({ do: FastCheck.constant("cut" as const), at: FastCheck.nat(10_000) }),
  FastCheck.record({ do: FastCheck.constant("forge" as const), as: kernel }),
  FastCheck.record({ do: FastCheck.constantFrom("remove" as const, "block" as const) })
)
type Step = typeof step extends FastCheck.Arbitrary<infer A> ? A : never

/** Do the steps, and compare what each load gives, and leaves, with what is known of the files. */
const live = (
  kernels: { readonly [name: string]: Buffer },
  first: string,
  steps: ReadonlyArray<Step>
) =>
  Effect.gen(function*() {
    const { entry, outside, root, sidecar, top, vmlinux } = yield* places
    let name = first
    writeFileSync(vmlinux, kernels[name])
    writeFileSync(join(outside, "vmlinux"), kernels["bbb"])
    symlinkSync(vmlinux, join(outside, "link"))
    symlinkSync(join(outside, "vmlinux"), join(entry, "link"))
    symlinkSync(entry, join(outside, "entry"))
    symlinkSync(root, join(top, "root"))
    mkdirSync(join(top, "another"))
    if (process.getuid?.() === 0) chownSync(entry, 0, 0)
    for (const step of [...steps, LAST]) {
      switch (step.do) {
        case "rewrite": {
          name = step.as
          const { atime, mtime } = statSync(vmlinux)
          writeFileSync(vmlinux, kernels[name])
          if (step.sameTime) utimesSync(vmlinux, atime, mtime)
          break
        }
        case "touch": {
          const path = step.sidecar ? sidecar : vmlinux
          const time = Math.floor(Date.now() / 1000) - step.ago
          if (existsSync(path)) utimesSync(path, time, time)
          break
        }
        case "flip":
        case "cut": {
          if (!existsSync(sidecar) || !statSync(sidecar).isFile() || statSync(sidecar).size === 0) break
          const bytes = readFileSync(sidecar)
          const at = step.at % bytes.length
          if (step.do === "flip") bytes[at] ^= step.mask
          writeFileSync(sidecar, step.do === "flip" ? bytes : bytes.subarray(0, at))
          break
        }
        case "forge":
          rmSync(sidecar, { force: true, recursive: true })
          writeFileSync(sidecar, blob(step.as))
          break
        case "remove":
        case "block":
          rmSync(sidecar, { force: true, recursive: true })
          if (step.do === "block") mkdirSync(sidecar)
          break
        case "load": {
          const path = {
            "name": vmlinux,
            "link from outside": join(outside, "link"),
            "link to outside": join(entry, "link"),
            "relative name": relative(process.cwd(), join(outside, "..", "cache", "entry", "vmlinux")),
            "linked directory": join(outside, "entry", "vmlinux")
          }[step.by] ?? vmlinux
          const cache = {
            "the cache": root,
            "a link to it": join(top, "root"),
            "another": join(top, "another"),
            "missing": join(top, "missing")
          }[step.cache]
          const before = states(top)
          if (!step.mayWrite) chmodSync(entry, 0o555)
          const load = loaded(path, cache)
          const result = yield* step.mayWrite ? load : asNobody(load)
          chmodSync(entry, 0o755)
          const inside = step.by !== "link to outside" && (step.cache === "the cache" || step.cache === "a link to it")
          const expected = step.by === "link to outside" ? "bbb" : name
          assert.strictEqual(result.name, expected)
          const after = states(top)
          if (!inside || !step.mayWrite || name === "nameless") {
            assert.deepStrictEqual(after, before, "nothing may be written")
          } else if (existsSync(sidecar) && statSync(sidecar).isDirectory()) {
            assert.deepStrictEqual(after, before)
            assert.match(result.warnings.join(), /cannot be written/)
          } else {
            before.delete("cache/entry/vmlinux.btf")
            after.delete("cache/entry/vmlinux.btf")
            assert.deepStrictEqual(after, before, "nothing but the sidecar may be written")
            const section = blob(name)
            assert.deepStrictEqual(new Uint8Array(readFileSync(sidecar).subarray(0, section.length)), section)
          }
        }
      }
    }
  })

const LAST: Step = { do: "load", by: "name", cache: "the cache", mayWrite: true }

/** The files of our directories, and a mark of what each holds. Links to directories are not followed. */
const states = (top: string): Map<string, string> =>
  new Map(
    ["cache/entry", "cache", "outside", "another", "."].flatMap((directory) =>
      readdirSync(join(top, directory)).map((name): [string, string] => {
        const info = lstatSync(join(top, directory, name))
        return [join(directory, name), info.isFile() ? `${info.ino} ${info.size} ${info.mtimeMs}` : "no file"]
      })
    )
  )
