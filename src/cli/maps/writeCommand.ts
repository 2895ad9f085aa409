import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { handler } from "../handler.ts"
import { writeOptions } from "./writeOptions.ts"

const frozen = handler(() => import("./write.ts"), (module) => module.write)
const live = handler(() => import("./liveWrite.ts"), (module) => module.liveWrite)

/** `ktstr maps write`, a subcommand of `maps`. */
export const write = Command.make(
  "write",
  writeOptions,
  (config) =>
    Effect.gen(function*() {
      if (config.live) yield* live(config)
      else yield* frozen(config)
    })
).pipe(
  Command.withDescription(
    "Set values in the BPF maps of a frozen guest, all or none, then resume it; or an entry of a map of this host"
  )
)
