import { assert, describe, it, layer } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import { setImmediate } from "node:timers/promises"
import { Kva } from "../../src/core/Address.ts"
import { GuestKernel } from "../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../src/memory/GuestMemory.ts"
import { idrLayout, walkIdr } from "../../src/memory/structs/Xarray.ts"
import { parseVmlinux, type Vmlinux } from "../../src/memory/Vmlinux.ts"
import { madeElf } from "./MadeElf.ts"
import { LINKED, LOADED, MadeKernel, type MadeKernelOptions } from "./MadeKernel.ts"

/** The vmlinux of a made kernel: its image at link-time addresses, and its symbols. */
const vmlinuxOf = (made: MadeKernel, subject = "vmlinux"): Either.Either<Vmlinux, Error> => {
  const { shift } = made.options
  const symbols = new Map(
    [...made.symbols].map(([name, address]) => [name === "swapper_pg_dir" ? "init_top_pgt" : name, address - shift])
  )
  symbols.set("runqueues", 0x3_6400n)
  const image = made.bytes.slice(0, 24 * 4096)
  return parseVmlinux(madeElf([{ vaddr: LINKED, paddr: LOADED, bytes: image }], { type: 2, symbols }), subject)
}
const failure = <A, E extends Error>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), (error) => error.message)

const made = new MadeKernel({ levels: 5 })
layer(GuestKernel.layer(made.memory()))("GuestKernel.fromMemory", (it) => {
  it.effect("knows the kernel's release, symbols and types", () =>
    Effect.gen(function*() {
      const kernel = yield* GuestKernel
      assert.strictEqual(kernel.release, "6.12.0-made")
      assert.strictEqual(kernel.symbol("map_idr"), made.symbols.get("map_idr"))
      assert.strictEqual(kernel.symbol("no_such"), undefined)
      assert.deepStrictEqual(kernel.symbolAt(made.symbols.get("map_idr")! + 3n), { name: "map_idr", offset: 3 })
      assert.strictEqual(kernel.btf.sizeOf(kernel.btf.idsByName("xa_node")[0]), 576)
      assert.strictEqual(kernel.space.directBase, Number(made.options.directBase >> 12n))
    }))

  it.effect("places per-CPU pointers and symbols, modulo 2^64, for possible CPUs only", () =>
    Effect.gen(function*() {
      const kernel = yield* GuestKernel
      assert.deepStrictEqual(kernel.perCpuOffsets, [0x1000_0000n, 0x1000_8000n])
      assert.strictEqual(kernel.perCpu(0xffff_8880_0000_0000n, 1), Kva(0xffff_8880_1000_8000n))
      assert.strictEqual(kernel.perCpu(0xffff_8880_0000_0000n, 2), undefined)
      assert.strictEqual(kernel.perCpu(2n ** 64n - 0x1000n, 0), undefined) // wraps round to where no kernel is
      const lowest = made.options.directBase // bit 55 is clear, as 5-level paging allows
      assert.strictEqual(kernel.perCpu(lowest, 0), lowest + 0x1000_0000n)
      assert.strictEqual(kernel.symbol("runqueues"), undefined)
      assert.strictEqual(kernel.symbols.address("runqueues"), 0x3_6400n)
    }))

  it.effect("reads and translates", () =>
    Effect.gen(function*() {
      const kernel = yield* GuestKernel
      const stext = kernel.symbol("_stext")!
      assert.strictEqual(yield* kernel.translate(stext), made.physical("_stext"))
      assert.deepStrictEqual([...yield* kernel.read(stext, 2)], [0xc3, 0xc3])
      const nowhere = Kva(0xff10_0000_0000_1234n)
      assert.strictEqual(
        yield* failure(kernel.translate(nowhere)),
        "0xff10000000001000 is not mapped in the kernel's page tables"
      )
      assert.strictEqual(
        yield* failure(kernel.read(nowhere, 8)),
        "0xff10000000001000 is not mapped in the kernel's page tables"
      )
      assert.include(yield* failure(kernel.read(stext, 2 ** 30)), "longer than the limit")
    }))
})

describe("GuestKernel.fromMemory", () => {
  it.effect("says what it looked for where there is no kernel", () =>
    Effect.gen(function*() {
      const empty = new GuestMemory([{ start: 0, bytes: new Uint8Array(2 ** 20) }])
      const message = yield* failure(GuestKernel.fromMemory(empty, "file.img"))
      assert.include(
        message,
        "file.img: no running x86-64 or arm64 Linux kernel in it; looked for a VMCOREINFO page in 1 MiB, found 0; give "
      )
      assert.notInclude(message, "\n")
    }))

  it.effect("says what is wrong with the only candidate", () =>
    Effect.gen(function*() {
      const made = new MadeKernel()
      const cut = new GuestMemory([{ start: LOADED + 24 * 4096, bytes: made.bytes.subarray(24 * 4096) }])
      assert.include(
        yield* failure(GuestKernel.fromMemory(cut)),
        "found 2, the last one wrong: it puts the page tables at physical 0x200000"
      )
    }))

  it.effect("asks for BTF where the kernel has none, or none that can be read", () =>
    Effect.gen(function*() {
      const refused = (options: MadeKernelOptions, change: (made: MadeKernel) => void = () => {}) => {
        const made = new MadeKernel(options)
        change(made)
        return failure(GuestKernel.fromMemory(made.memory()))
      }
      assert.strictEqual(
        yield* refused({ btf: "none" }),
        "no BTF of kernel 6.12.0-made: its symbols lack __start_BTF; build it with CONFIG_DEBUG_INFO_BTF=y and CONFIG_KALLSYMS_ALL=y"
      )
      assert.include(yield* refused({ btf: new Uint8Array(0) }), "are 0 bytes apart")
      assert.include(yield* refused({ btf: new Uint8Array(64) }), "BTF of kernel 6.12.0-made: BTF at byte 0")
      const cut = (made: MadeKernel) => made.map((made.symbols.get("__start_BTF")! >> 12n << 12n) + 4096n, 0x7fff_f000)
      assert.include(yield* refused({ btf: new Uint8Array(9000) }, cut), "the image seems cut short")
    }))
})

describe("GuestKernel.fromVmlinux", () => {
  it.effect("finds a kernel that does not describe itself, wherever KASLR put it", () =>
    Effect.gen(function*() {
      for (const levels of [4, 5] as const) {
        for (const shift of [0n, 0x20_0000n, 0x3ec0_0000n]) {
          const made = new MadeKernel({ levels, shift, without: ["data", "note"] })
          const kernel = yield* GuestKernel.fromVmlinux(made.memory(), Either.getOrThrow(vmlinuxOf(made)))
          assert.strictEqual(kernel.release, "6.12.0-made")
          for (const name of ["_stext", "map_idr", "init_top_pgt"]) {
            assert.strictEqual(kernel.symbol(name), made.symbols.get(name === "init_top_pgt" ? "swapper_pg_dir" : name))
          }
          assert.strictEqual(kernel.symbols.address("runqueues"), 0x3_6400n)
          assert.deepStrictEqual(kernel.symbolAt(made.symbols.get("map_idr")! + 3n), { name: "map_idr", offset: 3 })
          assert.strictEqual(kernel.symbolAt(made.symbols.get("swapper_pg_dir")! - 1n), undefined)
          assert.deepStrictEqual(kernel.perCpuOffsets, [0x1000_0000n, 0x1000_8000n])
        }
      }
    }))

  it.effect("refuses the vmlinux of another kernel", () =>
    Effect.gen(function*() {
      const vmlinux = Either.getOrThrow(vmlinuxOf(new MadeKernel(), "other"))
      const wrong = (change: (made: MadeKernel) => void, options: MadeKernelOptions = {}) => {
        const made = new MadeKernel(options)
        change(made)
        return failure(GuestKernel.fromVmlinux(made.memory(), vmlinux))
      }
      const banner = (made: MadeKernel) =>
        made.bytes.fill(0x41, made.physical("linux_banner") - LOADED + 20, made.physical("linux_banner") - LOADED + 24)
      assert.include(
        yield* wrong(banner),
        "other is not the kernel in this memory: both are 6.12.0-made, but of different builds"
      )
      assert.include(yield* wrong(banner, { release: "6.1.0-x" }), "it is of 6.12.0-made, the memory of 6.1.0-x")
      assert.include(
        yield* wrong(banner, { without: ["data", "note"] }),
        "\"Linux version 6.12.0-made …\" is nowhere in the memory"
      )
      assert.include(
        yield* wrong((made) =>
          made.bytes.fill(0, made.physical("__start_notes") - LOADED, made.physical("__start_notes") - LOADED + 4)
        ),
        "the build ids differ"
      )
      assert.include(
        yield* wrong((made) => made.set64(made.root + 511 * 8, 0n), { without: ["data", "note"] }),
        "no page tables map it"
      )
    }))

  it("refuses a file without symbols, or that is no kernel", () => {
    const message = (bytes: Uint8Array) =>
      Either.match(parseVmlinux(bytes, "x"), { onLeft: (error) => error.message, onRight: () => "read" })
    assert.include(message(madeElf([], { type: 2 })), "a symbol table with linux_banner and init_top_pgt")
    assert.include(message(Buffer.from("hello")), "x: ELF at byte 0: expected the magic bytes")
    const symbols = new Map([["linux_banner", LINKED], ["init_top_pgt", LINKED]])
    const image = (text: string) =>
      madeElf([{ vaddr: LINKED, paddr: 0, bytes: Buffer.from(text) }], { type: 2, symbols })
    assert.include(message(image("Windows version 3.1 \0")), "\"Linux version …\" at linux_banner")
    assert.strictEqual(message(image("Linux version 6.1 x\0")), "read")
    assert.include(message(madeElf([], { type: 2, symbols })), "at linux_banner")
  })
})

describe("hostile memory", () => {
  const kernels = [new MadeKernel({ levels: 4 }), new MadeKernel({ levels: 5, encoding: "relative to its place" })]
  const originals = kernels.map((kernel) => kernel.bytes.slice())
  const vmlinuxes = kernels.map((kernel) => Either.getOrThrow(vmlinuxOf(kernel)))
  // Where a change matters: the image and the tables and notes behind it; the rest is empty.
  const used = 40 * 4096
  const change = FastCheck.record({
    at: FastCheck.oneof(FastCheck.nat(used - 1), FastCheck.nat(used / 8 - 1).map((word) => word * 8)),
    bytes: FastCheck.oneof(
      FastCheck.uint8Array({ minLength: 1, maxLength: 16 }),
      FastCheck.constantFrom(0, 0x7f, 0x80, 0xff).map((byte) => new Uint8Array(8).fill(byte)),
      FastCheck.nat(63).map((page) => new Uint8Array(BigUint64Array.of(BigInt(LOADED + page * 4096) | 0xe3n).buffer))
    )
  })

  /** Everything this room offers, on one memory; true when a kernel was found. */
  const explore = (memory: GuestMemory, vmlinux: Vmlinux) =>
    Effect.gen(function*() {
      let found = false
      const attempts: ReadonlyArray<Effect.Effect<typeof GuestKernel.Service, Error>> = [
        GuestKernel.fromMemory(memory),
        GuestKernel.fromVmlinux(memory, vmlinux)
      ]
      for (const attempt of attempts) {
        const exit = yield* Effect.exit(attempt)
        if (Exit.isFailure(exit)) {
          assert.isTrue(Cause.isFailType(exit.cause), Cause.pretty(exit.cause))
          continue
        }
        found = true
        const kernel = exit.value
        for (const { address } of kernel.symbols.entries()) kernel.symbolAt(address)
        const map = kernel.symbol("map_idr")
        const shape = idrLayout(kernel.btf)
        if (map !== undefined && Either.isRight(shape)) {
          let visits = 0
          walkIdr(kernel.space, shape.right, map, () => visits++)
          assert.isBelow(visits, 2 ** 24)
        }
      }
      return found
    })

  it.effect("is found unharmed first", () =>
    Effect.gen(function*() {
      for (const [i, kernel] of kernels.entries()) assert.isTrue(yield* explore(kernel.memory(), vmlinuxes[i]))
    }))

  it.effect("never throws, hangs or fills the heap, whatever bytes change", () =>
    Effect.gen(function*() {
      const cases = FastCheck.sample(
        FastCheck.tuple(FastCheck.nat(1), FastCheck.array(change, { minLength: 1, maxLength: 12 })),
        { numRuns: 3000, seed: 12 }
      )
      let found = 0
      let slowest = 0
      for (const [which, changes] of cases) {
        const kernel = kernels[which]
        for (const { at, bytes } of changes) kernel.bytes.set(bytes.subarray(0, kernel.bytes.length - at), at)
        const start = performance.now()
        if (yield* explore(kernel.memory(), vmlinuxes[which])) found++
        slowest = Math.max(slowest, performance.now() - start)
        kernel.bytes.set(originals[which])
        yield* Effect.promise(() => setImmediate()) // the runner asks whether this test still lives
      }
      // Some of the changed kernels must still be read, or nothing behind the first check was tried.
      assert.isAbove(found, 300)
      assert.isBelow(found, cases.length)
      assert.isBelow(slowest, 5000)
    }), 120_000)

  it.effect("reads no further than an image that ends anywhere", () =>
    Effect.gen(function*() {
      for (let length = 1; length < used; length += 997) {
        const memory = new GuestMemory([{ start: LOADED, bytes: originals[0].slice(0, length) }])
        yield* explore(memory, vmlinuxes[0])
      }
    }))
})
