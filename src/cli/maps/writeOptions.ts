import * as Args from "@effect/cli/Args"
import type * as Command from "@effect/cli/Command"
import { flag, output, source, text, vm } from "../source/options.ts"

/** The arguments and options of `maps write`. */
export const writeOptions = {
  ...vm,
  live: source.live,
  ...output,
  map: text("map", "MAP", "the map, by name or id (default: the map that has the variable)"),
  key: text(
    "key",
    "JSON",
    "with --map: the entry's key, as a dump prints it, or its keyBytes; not needed for maps of one element"
  ),
  cpu: text("cpu", "CPU", "for per-CPU maps: the CPU to write, or `all`"),
  until: text("until", "REGEX", "then let the guest run until a line of its console matches, and print that line"),
  racy: flag(
    "racy",
    "with --kernel: write while the guest runs, without freezing it; only variables and array elements. Its programs may "
      + "see a part of the values before the rest, or overwrite them"
  ),
  any: flag("any", "with --live: create or update (default)"),
  create: flag("create", "with --live: only create"),
  existing: flag("existing", "with --live: only update"),
  delete: flag("delete", "with --live: delete the entry"),
  assignments: Args.text({ name: "assignment" }).pipe(
    Args.repeated,
    Args.withDescription(
      "VARIABLE.PATH=VALUE, e.g. g_stat.in.a=7; with --map PATH=VALUE, or =VALUE for the whole value; with --live =VALUE: "
        + "members that it leaves out keep their value"
    )
  )
}
export type WriteConfig = Command.Command.ParseConfig<typeof writeOptions>
