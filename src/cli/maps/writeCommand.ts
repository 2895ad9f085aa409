import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as Effect from "effect/Effect"
import { flag, output, target, text } from "../source/options.ts"

export const writeOptions = {
  ...target,
  ...output,
  map: text("map", "MAP", "the map, by name or id; if not given, the variable's name says which"),
  key: text(
    "key",
    "JSON",
    "with --map: the entry's key, as a dump prints it, or 0x and all its bytes in hex; not needed by maps of one element"
  ),
  cpu: text("cpu", "CPU", "in per-CPU maps: whose value, a CPU's number or all"),
  until: text("until", "REGEX", "then let the guest go on until a line of its console matches, and print that line"),
  racy: flag(
    "racy",
    "with --kernel: write while the guest runs, without freezing it, and only variables and array elements; its programs may "
      + "see a part of the values before the rest, or write over them"
  ),
  any: flag("any", "with --live: whether the entry is there or not (so it is if nothing is given)"),
  create: flag("create", "with --live: only if the entry is not there yet"),
  existing: flag("existing", "with --live: only if the entry is there"),
  delete: flag("delete", "with --live: delete the entry"),
  assignments: Args.text({ name: "assignment" }).pipe(
    Args.repeated,
    Args.withDescription(
      "VARIABLE.PATH=VALUE, as in g_stat.in.a=7; with --map PATH=VALUE, or =VALUE for the whole value; with --live =VALUE, "
        + "whose absent members stay as they are"
    )
  )
}
export type WriteConfig = Command.Command.ParseConfig<typeof writeOptions>

/** `ktstr maps write`, a subcommand of `maps`. */
export const write = Command.make("write", writeOptions, (config) =>
  Effect.gen(function*() {
    if (config.live) yield* (yield* Effect.promise(() => import("./liveWrite.ts"))).liveWrite(config)
    else yield* (yield* Effect.promise(() => import("./write.ts"))).write(config)
  })).pipe(
    Command.withDescription(
      "Set values in the BPF maps of a frozen guest, all of them or none, which its programs see when it goes on; or an "
        + "entry of a map of this host"
    )
  )
