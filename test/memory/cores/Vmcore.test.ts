import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NativeKoffi from "../../../src/core/NativeKoffi.ts"
import { makeVmcore, type X86VmcoreCpu } from "../../../src/memory/cores/Vmcore.ts"
import { GuestKernel } from "../../../src/memory/GuestKernel.ts"
import { GuestMemory } from "../../../src/memory/GuestMemory.ts"
import { openMemoryImage } from "../../../src/memory/MemoryImage.ts"
import { saveVmcore } from "../../../src/memory/SaveImage.ts"
import { findVmcoreinfo } from "../../../src/memory/Vmcoreinfo.ts"
import { IMAGE_PAGES, LOADED, MadeKernel } from "../MadeKernel.ts"

const MIB = 2 ** 20
const GIB = 2 ** 30

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ktstr-vmcore-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Memory with a hole, of which a part is zeros, and with bytes at its very end. */
const made = (): GuestMemory => {
  const kernel = new MadeKernel()
  const low = new Uint8Array(LOADED + 16 * MIB)
  low.set(kernel.bytes, LOADED)
  const high = new Uint8Array(MIB + 3).fill(7, MIB)
  return new GuestMemory([{ start: 0, bytes: low }, { start: 4 * GIB, bytes: high }])
}

const GENERAL = [
  "rax",
  "rbx",
  "rcx",
  "rdx",
  "rsi",
  "rdi",
  "rsp",
  "rbp",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
  "rip",
  "rflags"
] as const

/** Prints the registers of the core's first two notes, by the C library's own structs. */
const SHOW = `
#include <stdio.h>
#include <stdlib.h>
#include <sys/procfs.h>
#include <sys/user.h>
int main(int argc, char **argv) {
  FILE *file = fopen(argv[1], "r");
  fseek(file, strtol(argv[2], 0, 16), SEEK_SET);
  for (int i = 0; i < 2; i++) {
    char head[20];
    struct elf_prstatus status;
    if (!fread(head, sizeof head, 1, file) || !fread(&status, sizeof status, 1, file)) return 1;
    struct user_regs_struct *r = (void *)status.pr_reg;
    unsigned long long all[] = { r->rax, r->rbx, r->rcx, r->rdx, r->rsi, r->rdi, r->rsp, r->rbp, r->r8, r->r9, r->r10,
      r->r11, r->r12, r->r13, r->r14, r->r15, r->rip, r->eflags, r->cs, r->ds, r->es, r->fs, r->gs, r->ss, r->fs_base,
      r->gs_base };
    printf("%d", status.pr_pid);
    for (int n = 0; n < sizeof all / sizeof *all; n++) printf(" %llu", all[n]);
    puts("");
  }
}
`

/** Each register another number. */
const cpu = (seed: number): X86VmcoreCpu => {
  const value = (at: number) => BigInt(seed * 1000 + at)
  const segments = ["cs", "ds", "es", "fs", "gs", "ss"] as const
  return {
    general: Object.fromEntries(GENERAL.map((name, at) => [name, value(at)])) as X86VmcoreCpu["general"],
    segments: Object.fromEntries(
      segments.map((name, at) => [name, { selector: seed * 1000 + 100 + at, base: value(200 + at) }])
    ) as X86VmcoreCpu["segments"]
  }
}

const readelf = (...args: ReadonlyArray<string>) => execFileSync("readelf", args, { encoding: "utf8" })

layer(NativeKoffi.layer)("makeVmcore", (it) => {
  it.scoped("writes what readelf reads, and openMemoryImage reads back as it was", () =>
    Effect.gen(function*() {
      const memory = made()
      const path = join(yield* directory, "vmcore")
      yield* saveVmcore(memory, path, [cpu(1), cpu(2)])
      assert.strictEqual(statSync(path).size, makeVmcore(memory, [cpu(1), cpu(2)]).size)
      assert.isBelow(statSync(path).blocks * 512, 3 * MIB, "zeros are holes")

      const kernel = yield* GuestKernel.fromMemory(memory)
      const info = findVmcoreinfo(memory, () => true)!
      const loads = [...readelf("-lW", path).matchAll(/^ +LOAD +0x\w+ (0x\w+) (0x\w+) (0x\w+) (0x\w+) RWE/gm)]
        .map(([, ...words]) => words.map(BigInt))
      const direct = kernel.space.directBase!
      const at = (pa: number) => BigInt.asUintN(64, (BigInt(direct) << 12n) + BigInt(pa))
      const image = kernel.symbol("_stext")! & ~0xfffn
      const text = loads.find(([virtual]) => virtual === image)
      assert.deepStrictEqual(loads.filter((load) => load !== text), [
        [at(0), 0n, BigInt(LOADED + 16 * MIB), BigInt(LOADED + 16 * MIB)],
        [at(4 * GIB), BigInt(4 * GIB), BigInt(MIB + 3), BigInt(MIB + 3)]
      ])
      const rest = BigInt(LOADED + IMAGE_PAGES * 4096 - kernel.space.translate(image))
      assert.deepStrictEqual(text?.slice(1), [BigInt(kernel.space.translate(image)), rest, rest])
      assert.deepStrictEqual(
        [...readelf("-nW", path).matchAll(/^ +(CORE|VMCOREINFO) +(0x\w+)\t(\S+)/gm)].map(([, ...words]) => words),
        [
          ["CORE", "0x00000150", "NT_PRSTATUS"],
          ["CORE", "0x00000150", "NT_PRSTATUS"],
          ["VMCOREINFO", `0x${info.text.length.toString(16).padStart(8, "0")}`, "Unknown"]
        ]
      )

      const back = yield* openMemoryImage(path)
      assert.strictEqual(back.size, memory.size)
      for (const { bytes, start } of memory.regions) {
        assert.isTrue(Buffer.from(bytes).equals(back.bytes(start, bytes.length)!))
      }
      const again = yield* GuestKernel.fromMemory(back)
      assert.deepStrictEqual([again.release, again.kaslrOffset], [kernel.release, kernel.kaslrOffset])
    }))

  it.scoped("has each CPU's registers where struct elf_prstatus has them", () =>
    Effect.gen(function*() {
      const folder = yield* directory
      const path = join(folder, "vmcore")
      yield* saveVmcore(made(), path, [cpu(1), cpu(2)])
      const [, notesAt] = /^ +NOTE +(0x\w+)/m.exec(readelf("-lW", path))!
      writeFileSync(join(folder, "show.c"), SHOW)
      execFileSync("gcc", ["-o", join(folder, "show"), join(folder, "show.c")])
      const shown = execFileSync(join(folder, "show"), [path, notesAt], { encoding: "utf8" }).trimEnd().split("\n")
      assert.deepStrictEqual(
        shown,
        [1, 2].map((number) => {
          const { general: g, segments } = cpu(number)
          const selectors = (["cs", "ds", "es", "fs", "gs", "ss"] as const).map((name) => segments[name].selector)
          const words = [...GENERAL.map((name) => g[name]), ...selectors, segments.fs.base, segments.gs.base]
          return [number, ...words].join(" ")
        })
      )
    }))

  it.scoped("has an arm64 CPU's registers where its struct elf_prstatus has them", () =>
    Effect.gen(function*() {
      const path = join(yield* directory, "vmcore")
      const x = Array.from({ length: 31 }, (_, index) => 2n ** 63n + BigInt(index))
      yield* saveVmcore(made(), path, [{ x, sp: 31n, pc: 32n, pstate: 33n }])
      assert.match(readelf("-nW", path), /^ +CORE +0x00000188\tNT_PRSTATUS/m) // 392 bytes
      const [, notesAt] = /^ +NOTE +(0x\w+)/m.exec(readelf("-lW", path))!
      const status = readFileSync(path).subarray(Number(notesAt) + 20)
      // arch/arm64/include/uapi/asm/ptrace.h struct user_pt_regs, behind 112 bytes of include/linux/elfcore.h
      const found = Array.from({ length: 34 }, (_, index) => status.readBigUInt64LE(112 + index * 8))
      assert.deepStrictEqual([status.readUInt32LE(32), found], [1, [...x, 31n, 32n, 33n]])
    }))

  it.scoped("has no VMCOREINFO where there is no kernel, and says so", () =>
    Effect.gen(function*() {
      const memory = new GuestMemory([{ start: 0, bytes: new Uint8Array(MIB).fill(1) }])
      const path = join(yield* directory, "vmcore")
      yield* saveVmcore(memory, path)
      assert.isUndefined(makeVmcore(memory).release)
      assert.notInclude(readelf("-nW", path), "VMCOREINFO")
      assert.strictEqual((yield* openMemoryImage(path)).u32(MIB - 4), 0x0101_0101)
    }))

  it.scoped("has more segments than e_phnum can say", () =>
    Effect.gen(function*() {
      const byte = Uint8Array.of(1)
      const memory = new GuestMemory(Array.from({ length: 70_000 }, (_, page) => ({ start: page * 8192, bytes: byte })))
      const path = join(yield* directory, "vmcore")
      const fd = openSync(path, "w")
      let at = 0
      for (const piece of makeVmcore(memory).pieces) {
        if (piece instanceof Uint8Array) writeSync(fd, piece, 0, piece.length, at)
        at += piece instanceof Uint8Array ? piece.length : piece.zeros
      }
      closeSync(fd)
      assert.match(readelf("-hW", path), /Number of program headers: +65535 \(70000\)/)
    }))

  it.scoped("leaves the file as it was, and nothing beside it, when it cannot be written", () =>
    Effect.gen(function*() {
      const folder = yield* directory
      const memory = made()
      writeFileSync(join(folder, "vmcore"), "old")
      memory.release()
      const exit = yield* Effect.exit(saveVmcore(memory, join(folder, "none", "vmcore")))
      assert.strictEqual(exit._tag, "Failure")
      assert.deepStrictEqual(readdirSync(folder), ["vmcore"])
    }))
})
