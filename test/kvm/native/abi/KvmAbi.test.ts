import { assert, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { API_VERSION, Capability, Constant, Exit, Request, Struct } from "../../../../src/kvm/native/abi/KvmAbi.ts"

/** What a C compiler makes of the expressions, in their order. */
const compiled = (expressions: ReadonlyArray<string>): ReadonlyArray<number> => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-abi-"))
  try {
    const source = join(directory, "abi.c")
    const program = join(directory, "abi")
    writeFileSync(
      source,
      `#include <stddef.h>
#include <stdio.h>
#include <linux/kvm.h>
int main(void) {
${expressions.map((expression) => `  printf("%llu\\n", (unsigned long long)(${expression}));`).join("\n")}
}
`
    )
    execFileSync("gcc", ["-o", program, source])
    return execFileSync(program, { encoding: "utf8" }).trim().split("\n").map(Number)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

it("numbers, sizes and offsets are those of the kernel's headers", () => {
  const ours = new Map<string, number>([["KVM_API_VERSION", API_VERSION]])
  for (const table of [Request, Capability, Exit, Constant]) {
    for (const [name, value] of Object.entries(table)) ours.set(name, value)
  }
  for (const [struct, { fields, size }] of Object.entries(Struct)) {
    ours.set(`sizeof(struct ${struct})`, size)
    for (const [field, offset] of Object.entries(fields)) ours.set(`offsetof(struct ${struct}, ${field})`, offset)
  }
  const names = [...ours.keys()]
  const theirs = compiled(names)
  assert.deepStrictEqual(new Map(names.map((name, index) => [name, theirs[index]])), ours)
})
