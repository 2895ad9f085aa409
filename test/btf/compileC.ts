import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseElf } from "../../src/core/image/Elf.ts"

/** A C file through `clang -g -target bpf`: its BTF, its sections, and what bpftool prints of its types. */
export const compileC = (source: string) => {
  const dir = mkdtempSync(join(tmpdir(), "ktstr-btf-"))
  try {
    writeFileSync(join(dir, "a.c"), source)
    execFileSync("clang", ["-g", "-O1", "-target", "bpf", "-c", "a.c", "-o", "a.o"], { cwd: dir })
    const elf = parseElf(new Uint8Array(readFileSync(join(dir, "a.o"))), "a.o")
    const section = (name: string): Uint8Array => {
      const found = elf.section(name)
      if (found === undefined) throw new Error(`a.o has no section ${name}`)
      return new Uint8Array(elf.data(found))
    }
    const dump: { types: ReadonlyArray<{ readonly id: number; readonly kind: string; readonly name: string }> } = JSON
      .parse(execFileSync("bpftool", ["btf", "dump", "file", "a.o", "-j"], { cwd: dir, encoding: "utf8" }))
    return { btf: section(".BTF"), section, symbols: elf.symbols(), dump: dump.types }
  } finally {
    rmSync(dir, { recursive: true })
  }
}
