import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { btf } from "./btf/btfCommand.ts"
import { kernel } from "./kernel/kernelCommand.ts"
import { diff } from "./maps/diffCommand.ts"
import { watch } from "./maps/watchCommand.ts"
import { write } from "./maps/writeCommand.ts"
import { links } from "./programs/linksCommand.ts"
import { progs } from "./programs/progsCommand.ts"
import { sched } from "./sched/schedCommand.ts"
import { filter, mapName, out, output, schema, target } from "./source/options.ts"
import { vm } from "./vm/vmCommand.ts"

// The handlers' modules are imported when they run: `ktstr --help` must not load what only a dump needs.
const dump = Command.make("dump", {
  ...target,
  ...output,
  ...filter,
  out,
  schema
}, (config) => Effect.flatMap(Effect.promise(() => import("./maps/dump.ts")), (module) => module.dump(config))).pipe(
  Command.withDescription("Print the BPF maps of a kernel, entry by entry, with their C types")
)

const list = Command.make(
  "list",
  { ...target, ...output, type: filter.type, map: filter.map },
  (config) => Effect.flatMap(Effect.promise(() => import("./maps/maps.ts")), (module) => module.list(config))
).pipe(
  Command.withDescription("List the BPF maps of a kernel")
)

const show = Command.make(
  "show",
  { ...target, ...output, limit: filter.limit, inner: filter.inner, name: mapName },
  (config) => Effect.flatMap(Effect.promise(() => import("./maps/maps.ts")), (module) => module.show(config))
).pipe(
  Command.withDescription("Print one map: what it is, and its entries")
)

const maps = Command.make("maps").pipe(
  Command.withDescription("List the BPF maps of a kernel, show one, or write into one"),
  Command.withSubcommands([list, show, write])
)

const doctor = Command.make(
  "doctor",
  { json: output.json },
  (config) => Effect.flatMap(Effect.promise(() => import("./doctor.ts")), (module) => module.doctor(config))
).pipe(
  Command.withDescription("Say what this host has and lacks, what that means, and how to fix it")
)

/** The whole command line. */
export const ktstr = Command.make("ktstr").pipe(
  Command.withDescription(
    "Boot a Linux kernel in a throw-away VM, freeze it, and show its BPF maps with C types, from its memory alone"
  ),
  Command.withSubcommands([dump, maps, progs, links, sched, diff, watch, vm, kernel, btf, doctor])
)
