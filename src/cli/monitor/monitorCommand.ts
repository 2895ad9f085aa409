import * as Command from "@effect/cli/Command"
import { handler } from "../handler.ts"
import { every } from "../source/every.ts"
import { count, machine, output, script } from "../source/options.ts"

/** `ktstr monitor` */
export const monitor = Command.make("monitor", {
  ...machine,
  ...script,
  every,
  ndjson: output.ndjson,
  count: count("count", 1, "end after N samples")
}, handler(() => import("./monitor.ts"), (module) => module.monitor)).pipe(
  Command.withDescription("Sample a VM while it runs: CPUs, queues, rates, broken rules")
)
