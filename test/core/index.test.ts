import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

/** The libraries that this process has mapped, by the kernel's account. */
const koffiIsLoaded = (): boolean => readFileSync("/proc/self/maps", "utf8").includes("koffi.node")

it("the room's index loads no koffi, and the native layer does", async () => {
  const core = await import("../../src/core/index.ts")
  assert.isFunction(core.parseElf)
  assert.isFalse(koffiIsLoaded())
  await import("../../src/core/NativeKoffi.ts")
  assert.isTrue(koffiIsLoaded())
})
