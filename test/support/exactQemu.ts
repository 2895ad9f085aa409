import * as Effect from "effect/Effect"
import type { TestContext } from "vitest"
import { findExactQemu } from "../../src/harness/engine/FindQemu.ts"
import { HostLive } from "./guest.ts"

/**
 * For `beforeEach`: without a QEMU that emulates exactly tests are skipped and say why; with `KTSTR_REQUIRE_EXACT=1` in the
 * environment they fail.
 */
export const needsExactQemu = async (context: TestContext): Promise<void> => {
  const found = await Effect.runPromise(Effect.either(findExactQemu.pipe(Effect.provide(HostLive))))
  if (found._tag === "Right") return
  if (process.env["KTSTR_REQUIRE_EXACT"] === "1") throw found.left
  context.skip(found.left.message)
}
