import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { existsSync, realpathSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { HostLacks } from "../../core/Errors.ts"

/** Where the build puts it, in the package. */
const IN_PACKAGE = "dist/agent/ktstr-agent-x86_64"

/**
 * The package's directory: this file is src/harness/agent/AgentProgram.ts of it or dist/harness/agent/AgentProgram.js, or
 * bundled into dist/bin/main.cjs, which has no `import.meta.url`, and runs as dist/bin/ktstr.cjs.
 */
const packageDirectory = (): string =>
  import.meta.url === undefined
    ? join(realpathSync(process.argv[1]), "../../..")
    : fileURLToPath(new URL("../../..", import.meta.url))

/**
 * The path of the program that runs in a guest: `KTSTR_AGENT`, or the one of the package. Fails with `HostLacks` where it
 * was not built.
 *
 * @since 0.1.0
 * @category reading
 */
export const agentProgram: Effect.Effect<string, HostLacks> = Effect.gen(function*() {
  const named = yield* Effect.orElseSucceed(Config.option(Config.string("KTSTR_AGENT")), () => Option.none<string>())
  const path = Option.getOrElse(named, () => join(packageDirectory(), IN_PACKAGE))
  if (existsSync(path)) return path
  return yield* new HostLacks({
    what: "the guest's agent",
    why: `${path} does not exist`,
    hint: Option.isSome(named)
      ? "set KTSTR_AGENT to the path of one"
      : "in a checkout, apt-get install musl-tools and npm run build"
  })
})
