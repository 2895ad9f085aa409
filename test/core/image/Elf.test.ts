import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { FormatError, parsing } from "../../../src/core/FormatError.ts"
import { ElfFile, parseElf, SectionType } from "../../../src/core/image/Elf.ts"
import { run } from "../samples.ts"

const directory = mkdtempSync(join(tmpdir(), "ktstr-elf-"))
afterAll(() => rmSync(directory, { recursive: true }))

const source = join(directory, "sample.c")
writeFileSync(
  source,
  `int shared_name = 1; static int local_name = 2; extern int elsewhere;
   static int helper(void) { return local_name; }
   int __attribute__((weak)) weak_name(void) { return helper() + elsewhere; }`
)
const object = join(directory, "sample.o")
run("clang", ["-c", "-g", "-ffunction-sections", source, "-o", object])
const bpfObject = join(directory, "sample.bpf.o")
run("clang", ["-target", "bpf", "-c", "-g", source, "-o", bpfObject])

/** More sections than 16 bits count, so that the counts live in section header 0. */
const manySections = join(directory, "many.o")
run(
  "clang",
  ["-c", "-x", "assembler", "-", "-o", manySections],
  Buffer.from(Array.from({ length: 66_000 }, (_, i) => `.section s${i},"a"\n.byte 1\n`).join(""))
)

const files = [
  object,
  bpfObject,
  "/usr/sbin/bpftool",
  "/bin/busybox",
  "/lib/x86_64-linux-gnu/libc.so.6",
  "/usr/bin/qemu-system-x86_64",
  process.execPath
].filter((path) => existsSync(path)).map((path) => realpathSync(path))

const open = (path: string) => parseElf(readFileSync(path), path)
const lines = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match.slice(1))
const hex = (text: string) => parseInt(text, 16)

describe.each(files)("%s, against readelf", (path) => {
  const elf = open(path)

  it("has its sections", () => {
    const rows = lines(
      run("readelf", ["-SW", path]).toString(),
      /^ *\[ *(\d+)\] (.{17}\S*) *(\S+) +([0-9a-f]{16}) ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]{2,}) +[A-Za-z]* +(\d+) +\d+ +\d+$/gm
    )
    assert.isAbove(rows.length, 3)
    const found = elf.sections.map(({ addr, entsize, index, link, name, offset, size }) => ({
      index,
      name,
      addr,
      offset,
      size,
      entsize,
      link
    }))
    assert.deepStrictEqual(
      found.slice(1),
      rows.filter(([index]) => index !== "0").map(([index, name, , addr, offset, size, entsize, link]) => ({
        index: Number(index),
        name: name.trim(),
        addr: BigInt(`0x${addr}`),
        offset: hex(offset),
        size: hex(size),
        entsize: hex(entsize),
        link: Number(link)
      }))
    )
  })

  it("has its segments and its interpreter", () => {
    const text = run("readelf", ["-lW", path]).toString()
    const rows = lines(
      text,
      /^ {2}[A-Z_]+ +0x([0-9a-f]+) 0x([0-9a-f]{16}) 0x([0-9a-f]{16}) 0x([0-9a-f]+) 0x([0-9a-f]+) ([R ])([W ])([E ]) /gm
    )
    assert.deepStrictEqual(
      elf.segments.map(({ filesz, flags, memsz, offset, paddr, vaddr }) => ({
        offset,
        vaddr,
        paddr,
        filesz,
        memsz,
        flags
      })),
      rows.map(([offset, vaddr, paddr, filesz, memsz, r, w, x]) => ({
        offset: hex(offset),
        vaddr: BigInt(`0x${vaddr}`),
        paddr: BigInt(`0x${paddr}`),
        filesz: hex(filesz),
        memsz: hex(memsz),
        flags: (r === "R" ? 4 : 0) + (w === "W" ? 2 : 0) + (x === "E" ? 1 : 0)
      }))
    )
    assert.strictEqual(elf.interpreter, /\[Requesting program interpreter: (.*)\]/.exec(text)?.[1])
  })

  it("has its needed libraries and search paths", () => {
    const text = run("readelf", ["-d", path]).toString()
    const of = (tag: string) => lines(text, new RegExp(`\\(${tag}\\).*\\[(.*)\\]`, "g")).map(([value]) => value)
    assert.deepStrictEqual(elf.needed(), {
      libraries: of("NEEDED"),
      runpath: of("RUNPATH").flatMap((value) => value.split(":")),
      rpath: of("RPATH").flatMap((value) => value.split(":"))
    })
  })

  it("has its symbols", () => {
    const rows = lines(
      run("readelf", ["-sW", path]).toString().split("Symbol table '.symtab'")[1] ?? "",
      /^ *\d+: ([0-9a-f]{16}) +\S+ (?!SECTION|FILE)\S+ +(LOCAL|GLOBAL|WEAK|UNIQUE|<OS\S*>: \d+) +\S+(?: +\[.*?\])? +(?!UND)\S+ (\S.*)$/gm
    )
    const expected = new Map<string, bigint>()
    const local = new Set<string>()
    for (const [value, binding, name] of rows) {
      if (expected.has(name) && (binding === "LOCAL" || !local.has(name))) continue
      if (binding === "LOCAL") local.add(name)
      else local.delete(name)
      expected.set(name, BigInt(`0x${value}`))
    }
    assert.strictEqual(elf.symbols().size, expected.size)
    assert.deepStrictEqual([...elf.symbols()].find(([name, value]) => expected.get(name) !== value), undefined)
  })
})

describe("a file with 66,000 sections", () => {
  it("has its counts in section header 0", () => {
    const elf = open(manySections)
    assert.isAbove(elf.sections.length, 66_000)
    assert.deepStrictEqual([...elf.data(elf.section("s65999")!)], [1])
  })
})

describe("section data", () => {
  it("are the bytes that objcopy extracts", () => {
    const out = join(directory, "out")
    run("objcopy", ["-O", "binary", "--only-section=.text.weak_name", object, out])
    const elf = open(object)
    assert.deepStrictEqual(Buffer.from(elf.data(elf.section(".text.weak_name")!)), readFileSync(out))
  })

  it("are none for a section without bytes in the file", () => {
    const elf = open(process.execPath)
    const bss = elf.section(".bss")!
    assert.strictEqual(bss.type, SectionType.Nobits)
    assert.strictEqual(elf.data(bss).length, 0)
  })

  it("outside the file are an error that names the section", () => {
    const bytes = readFileSync(object)
    const elf = parseElf(bytes, "sample.o")
    const text = elf.sections.find((section) => section.type === SectionType.Progbits && section.size > 0)!
    const error = parsing(() => elf.data({ ...text, offset: bytes.length - 1, size: 2 }))
    assert.strictEqual(
      Either.isLeft(error) && error.left.message,
      `sample.o: ELF at byte ${bytes.length - 1}: expected the 2 bytes of section ${text.name} inside the file`
    )
  })
})

describe("offsetOf", () => {
  it("finds each section's bytes by its address, and nothing outside the segments", () => {
    const elf = open("/bin/busybox")
    const mapped = elf.sections.filter((section) => section.addr > 0n && section.type !== SectionType.Nobits)
    assert.isAbove(mapped.length, 3)
    assert.deepStrictEqual(mapped.map((section) => elf.offsetOf(section.addr)), mapped.map((section) => section.offset))
    assert.isUndefined(elf.offsetOf(0xdead_0000_0000n))
    assert.isUndefined(elf.offsetOf(0n))
  })
})

/** All that can be asked of a file; only `FormatError` may come out. */
const exercise = (bytes: Uint8Array) =>
  parsing(() => {
    const elf = new ElfFile(bytes, "hostile")
    for (const section of elf.sections.slice(0, 100)) void parsing(() => elf.data(section))
    void parsing(() => elf.symbols())
    void parsing(() => elf.needed())
    void parsing(() => elf.interpreter)
    return elf
  })

describe("hostile bytes", () => {
  const small = readFileSync(object)
  const shared = readFileSync("/lib/x86_64-linux-gnu/libdl.so.2")

  it("every prefix of an object parses or is a FormatError", () => {
    let failures = 0
    for (let length = 0; length < small.length; length++) {
      if (Either.isLeft(exercise(small.subarray(0, length)))) failures++
    }
    assert.strictEqual(failures, small.length) // the section headers are at the end
  })

  it.prop(
    "overwritten words give an ELF file or a FormatError",
    [
      FastCheck.boolean(),
      FastCheck.array(FastCheck.tuple(FastCheck.nat(), FastCheck.integer()), { minLength: 1, maxLength: 8 })
    ],
    ([dynamic, changes]) => {
      const bytes = Buffer.from(dynamic ? shared : small)
      for (const [at, value] of changes) bytes.writeInt32LE(value, at % 4 === 0 ? at % 64 : at % (bytes.length - 4))
      exercise(bytes)
    },
    { fastCheck: { numRuns: 2000 } }
  )

  it("names that all share one long string do not multiply it", () => {
    const count = 50_000
    const bytes = new Uint8Array(64 + count * 64 + 2 ** 20).fill(0x61)
    const view = new DataView(bytes.buffer)
    bytes.fill(0, 0, 64 + count * 64)
    bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1])
    bytes[bytes.length - 1] = 0
    view.setUint16(58, 64, true)
    view.setUint16(60, count, true)
    view.setUint16(62, 1, true)
    view.setUint32(40, 64, true)
    view.setUint32(64 + 64 + 24, 64 + count * 64, true)
    view.setUint32(64 + 64 + 32, 2 ** 20, true)
    const parsed = exercise(bytes)
    assert.isTrue(Either.isLeft(parsed) && parsed.left instanceof FormatError)
  })

  it("says what is wrong with a file of another kind", () => {
    const message = (bytes: Uint8Array) => {
      const parsed = exercise(bytes)
      return Either.isLeft(parsed) ? parsed.left.message : undefined
    }
    assert.strictEqual(
      message(Buffer.from("#!/bin/sh\n")),
      "hostile: ELF at byte 0: expected the magic bytes 7f 45 4c 46"
    )
    const big = Uint8Array.from(small)
    big[5] = 2
    assert.strictEqual(message(big), "hostile: ELF at byte 4: expected a 64-bit little-endian file")
    assert.strictEqual(message(small.subarray(0, 40)), "hostile: ELF at byte 40: expected a header of 64 bytes")
  })
})
