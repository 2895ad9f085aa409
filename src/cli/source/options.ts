import * as Args from "@effect/cli/Args"
import type * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { parseTopology } from "../../kvm/spec/Topology.ts"

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

/** A VM to boot: its kernel, the machine, and what the guest gets. */
export const machine = {
  kernel: text(
    "kernel",
    "ID",
    "boot this kernel in a VM: debian:6.12-cloud, 6.14, a path, or a key of `ktstr kernel list`; $KTSTR_KERNEL if not given"
  ),
  include: words("include", "PATH", "put a file, and the libraries it needs, into the guest as /include-files/NAME")
    .pipe(
      Options.repeated
    ),
  engine: Options.choice("engine", ["auto", "kvm", "qemu"]).pipe(
    Options.withDescription(
      "what runs the VM: ktstr itself on /dev/kvm, or QEMU; auto if not given, the best that works here (see ktstr doctor)"
    ),
    Options.optional
  ),
  cpus: count("cpus", 1, "the guest's CPUs; 1 if not given"),
  topology: Options.text("topology").pipe(
    Options.withPseudoName("NODES,LLCS,CORES,THREADS"),
    Options.withDescription(
      "the guest's NUMA nodes, LLCs in all, cores an LLC and threads a core, in place of --cpus; memory is shared out evenly"
    ),
    Options.mapEffect((text) =>
      Effect.mapError(
        parseTopology(text),
        ({ message }) => ValidationError.invalidValue(HelpDoc.p(`--topology: ${message}`))
      )
    ),
    Options.optional
  ),
  memoryMib: count("memory-mib", 1, "the guest's memory in MiB; 512 if not given"),
  disk: words("disk", "FILE[,ro]", "give the guest this image as a disk, /dev/vda and so on; ,ro is read-only").pipe(
    Options.repeated
  ),
  module: words("module", "NAME", "load this kernel module and its dependencies before the script").pipe(
    Options.repeated
  ),
  cmdline: text("cmdline", "WORDS", "more words for the guest kernel's command line"),
  console: text("console", "FILE", "keep the guest's console in this file"),
  timeout: count("timeout", 1, "seconds that the guest may take to boot and run the script; 60 if not given")
}

/** What a guest runs as root when it is up. */
export const script = {
  exec: text("exec", "SCRIPT", "shell commands to run in the guest as root; a guest that is read is frozen after them"),
  execFile: text("exec-file", "FILE", "the same, a script from this file")
}

/** Which kernel to read: an image of its memory, a VM that is booted for it, or this host's. */
export const target = {
  ...machine,
  ...script,
  image: text("image", "FILE", "read this image of a guest's memory (raw, or an ELF core); no other file is needed"),
  live: flag("live", "read the running kernel of this host, by bpf(2)"),
  vmlinux: text("vmlinux", "FILE", "with --image: take symbols and types from this vmlinux, not from the memory")
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
  limit: count("limit", 0, "print at most so many entries a map; if not given 64 for people, all in JSON"),
  inner: flag(
    "inner",
    "print the entries of the maps that a map of maps holds too, not their ids alone; one level deep"
  )
}

export const out = text("out", "FILE", "write the --json document, or the --ndjson records, to this file")

export const schema = flag("schema", "print the JSON Schema of the --json document, and nothing else")

export const mapName = Args.text({ name: "map" }).pipe(Args.withDescription("the map's name or id"))

/** What each handler is given. */
export type Machine = Command.Command.ParseConfig<typeof machine>
export type Script = Command.Command.ParseConfig<typeof script>
export type Target = Command.Command.ParseConfig<typeof target>
export type Output = Command.Command.ParseConfig<typeof output>
export type Filter = Command.Command.ParseConfig<typeof filter>
