import * as Args from "@effect/cli/Args"
import type * as Command from "@effect/cli/Command"
import * as Options from "@effect/cli/Options"
import * as Schema from "effect/Schema"

const words = (name: string, value: string, about: string) =>
  Options.text(name).pipe(Options.withPseudoName(value), Options.withDescription(about))

export const text = (name: string, value: string, about: string) =>
  words(name, value, about).pipe(
    Options.withSchema(
      Schema.NonEmptyString.annotations({ message: () => `--${name} wants a value, not an empty one` })
    ),
    Options.optional
  )

export const count = (name: string, least: number, about: string) =>
  Options.integer(name).pipe(
    Options.withSchema(
      Schema.Number.pipe(Schema.between(least, Number.MAX_SAFE_INTEGER)).annotations({
        message: () => `--${name} wants a whole number, ${least} or more`
      })
    ),
    Options.withDescription(about),
    Options.optional
  )

export const flag = (name: string, about: string) => Options.boolean(name).pipe(Options.withDescription(about))

/** Which kernel to read: an image of its memory, a VM that is booted for it, or this host's. */
export const target = {
  kernel: text(
    "kernel",
    "ID",
    "boot this kernel in a VM: debian:6.12-cloud, 6.14, a path, or a key of `ktstr kernel list`; $KTSTR_KERNEL if not given"
  ),
  image: text("image", "FILE", "read this image of a guest's memory (raw, or an ELF core); no other file is needed"),
  live: flag("live", "read the running kernel of this host, by bpf(2)"),
  vmlinux: text("vmlinux", "FILE", "with --image: take symbols and types from this vmlinux, not from the memory"),
  include: words("include", "PATH", "put a file, and the libraries it needs, into the guest as /include-files/NAME")
    .pipe(
      Options.repeated
    ),
  exec: text("exec", "SCRIPT", "shell commands to run in the guest before it is frozen"),
  execFile: text("exec-file", "FILE", "a script to run in the guest before it is frozen"),
  engine: Options.choice("engine", ["auto", "qemu"]).pipe(
    Options.withDescription("what runs the VM; auto is the best that works on this host"),
    Options.optional
  ),
  cpus: count("cpus", 1, "the guest's CPUs; 1 if not given"),
  memoryMib: count("memory-mib", 1, "the guest's memory in MiB; 512 if not given"),
  cmdline: text("cmdline", "WORDS", "more words for the guest kernel's command line"),
  console: text("console", "FILE", "keep the guest's console in this file"),
  timeout: count("timeout", 1, "seconds that the guest may take to boot and run the script; 60 if not given")
}

/** How to print the answer. */
export const output = {
  json: flag("json", "print one JSON document"),
  ndjson: flag("ndjson", "print one JSON record a line, as they are read")
}

/** Which maps, and how many entries of each. */
export const filter = {
  map: words("map", "MAP", "only the maps with this name or id").pipe(Options.repeated),
  type: words("type", "TYPE", "only the maps of this type, as in percpu_hash").pipe(Options.repeated),
  limit: count("limit", 0, "print at most so many entries a map; if not given 64 for people, all in JSON")
}

export const out = text("out", "FILE", "write the --json document, or the --ndjson records, to this file")

export const schema = flag("schema", "print the JSON Schema of the --json document, and nothing else")

export const mapName = Args.text({ name: "map" }).pipe(Args.withDescription("the map's name or id"))

/** What each handler is given. */
export type Target = Command.Command.ParseConfig<typeof target>
export type Output = Command.Command.ParseConfig<typeof output>
export type Filter = Command.Command.ParseConfig<typeof filter>
