import { assert, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Virtio, VirtioStruct } from "../../../../src/kvm/native/abi/VirtioAbi.ts"

const compiled = (expressions: ReadonlyArray<string>): ReadonlyArray<number> => {
  const directory = mkdtempSync(join(tmpdir(), "ktstr-virtio-"))
  try {
    const source = join(directory, "abi.c")
    const program = join(directory, "abi")
    const headers = ["mmio", "config", "ring", "ids", "blk", "console"].map((name) =>
      `#include <linux/virtio_${name}.h>`
    )
    writeFileSync(
      source,
      `#include <stddef.h>
#include <stdio.h>
${headers.join("\n")}
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
  const ours = new Map<string, number>(Object.entries(Virtio))
  for (const [struct, layout] of Object.entries(VirtioStruct)) {
    if ("size" in layout) ours.set(`sizeof(struct ${struct})`, layout.size)
    for (const [field, offset] of Object.entries(layout.fields)) {
      ours.set(`offsetof(struct ${struct}, ${field})`, offset)
    }
  }
  const names = [...ours.keys()]
  const theirs = compiled(names)
  assert.deepStrictEqual(new Map(names.map((name, index) => [name, theirs[index]])), ours)
})
