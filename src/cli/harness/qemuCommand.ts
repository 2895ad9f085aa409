import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { timeLimit } from "../source/options.ts"

const fetch = Command.make("fetch", timeLimit, handler(() => import("./qemu.ts"), (module) => module.fetch)).pipe(
  Command.withDescription(
    "Put the QEMU of Debian's backports into the cache, by apt, without installing it; exact mode needs QEMU 8.1"
  )
)

/** `ktstr qemu …` */
export const qemu = Command.make("qemu").pipe(
  Command.withDescription("Get the QEMU that exact mode needs"),
  Command.withSubcommands([fetch])
)
