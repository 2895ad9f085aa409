import * as Args from "@effect/cli/Args"
import type * as Command from "@effect/cli/Command"
import { count, flag, text } from "../source/options.ts"

/** The arguments and options of `kernel build`. */
export const buildOptions = {
  version: Args.text({ name: "version" }).pipe(
    Args.withDescription("6.14.2, 6.15-rc3, or a series: 6.14 means its newest release"),
    Args.optional
  ),
  source: text("source", "DIR", "build this kernel tree; it is not modified"),
  git: text("git", "URL", "build a commit of this repository; with --ref"),
  ref: text("ref", "REF", "a branch, tag or commit of --git"),
  tarball: text("tarball", "FILE-OR-URL", "build the kernel source in this archive"),
  extraKconfig: text("extra-kconfig", "FILE", "options added to ours; they take precedence"),
  cpuCap: count("cpu-cap", 1, "use at most N CPUs to compile (default: all)"),
  output: text("output", "DIR", "where to put a kernel that is not cached because its tree has uncommitted changes"),
  force: flag("force", "build even if the cache has it")
}
export type BuildConfig = Command.Command.ParseConfig<typeof buildOptions>

/** The options of `kernel clean`. */
export const cleanOptions = {
  keep: count("keep", 0, "keep the newest N entries"),
  corruptOnly: flag("corrupt-only", "remove only broken entries"),
  all: flag("all", "remove every entry")
}
export type CleanConfig = Command.Command.ParseConfig<typeof cleanOptions>
