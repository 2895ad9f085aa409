import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  DIRECTORY_AT,
  OP_CODES,
  PAGE_BYTES,
  PLAN_BYTES,
  RECORD_BYTES,
  RECORD_HEADER,
  RECORD_KINDS
} from "../../../src/harness/agent/Protocol.ts"
import { WORK_TYPES } from "../../../src/harness/scenario/WorkTypes.ts"

describe("guest-agent/protocol.h", () => {
  it("has the sizes, offsets and numbers that the host takes, as a compiler sees them", () => {
    const directory = mkdtempSync(join(tmpdir(), "ktstr-protocol-"))
    try {
      const program = join(directory, "protocol")
      const source = new URL("./protocol.c", import.meta.url).pathname
      execFileSync("gcc", ["-Wall", "-Werror", "-Iguest-agent", "-o", program, source])
      const c = JSON.parse(execFileSync(program, { encoding: "utf8" }))
      assert.deepStrictEqual(c.plan, PLAN_BYTES)
      const { done, ...bytes } = RECORD_BYTES
      assert.strictEqual(done, 0)
      assert.deepStrictEqual(c.record, { header: RECORD_HEADER, ...bytes })
      assert.deepStrictEqual(c.kinds, RECORD_KINDS)
      assert.deepStrictEqual(c.head, {
        state: 44,
        heartbeat: 48,
        log: 56,
        lost: 60,
        directory: DIRECTORY_AT,
        bytes: PAGE_BYTES
      })
      assert.isAtMost(c.page.bytes, PAGE_BYTES)
      assert.deepStrictEqual(c.page, { units: 16, events: 80, buckets: 128, bytes: c.page.bytes })
      assert.strictEqual(c.ops, Math.max(...Object.values(OP_CODES)) + 1)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  it("and the agent's table of work types has those of the host, in its order", () => {
    const source = readFileSync("guest-agent/work.c", "utf8")
    const table = /types\[\]\)\(struct self \*\) = \{([^}]*)\}/.exec(source)?.[1] ?? ""
    const names = table.split(",").map((name) => name.trim()).filter((name) => name !== "")
    const camel = names.map((name) =>
      name.replace(/_pair$/, "Pair").replaceAll(/_([a-z])/g, (_, c: string) => c.toUpperCase())
    )
    assert.deepStrictEqual(camel.map((name) => name === "pipePair" ? "pipe" : name), WORK_TYPES.map(({ name }) => name))
  })
})
