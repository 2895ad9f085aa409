import * as Args from "@effect/cli/Args"
import type * as Command from "@effect/cli/Command"
import * as HelpDoc from "@effect/cli/HelpDoc"
import * as Options from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { parseTopology } from "../../kvm/spec/Topology.ts"
import { VM_DEFAULTS } from "../../kvm/spec/VmDefaults.ts"
import { optionNames } from "../help/CommandTree.ts"
import type { Group } from "../help/Help.ts"
import { watchdog } from "./every.ts"

/** Entries of a map that text output shows when `--limit` is not given. */
export const TEXT_LIMIT = 64

/** An option with a value, which help calls `value`. */
export const words = (name: string, value: string, about: string): Options.Options<string> =>
  Options.text(name).pipe(Options.withPseudoName(value), Options.withDescription(about))

/** An option with a value that is not empty. */
export const text = (name: string, value: string, about: string) =>
  words(name, value, about).pipe(
    Options.withSchema(Schema.NonEmptyString.annotations({ message: () => `--${name} needs a non-empty value` })),
    Options.optional
  )

/** An option with a whole number. */
export const count = (name: string, least: number, about: string) =>
  words(name, "N", about).pipe(
    Options.withSchema(
      Schema.NumberFromString.pipe(Schema.int(), Schema.between(least, Number.MAX_SAFE_INTEGER)).annotations({
        message: () => ({ message: `--${name} needs a whole number, ${least} or more`, override: true })
      })
    ),
    Options.optional
  )

export const flag = (name: string, about: string): Options.Options<boolean> =>
  Options.boolean(name).pipe(Options.withDescription(about))

/** How long a command without a VM may take. */
export const timeLimit = {
  timeout: count("timeout", 1, "seconds after which the command gives up, with exit code 1 (default: no limit)")
}

const kernel = {
  kernel: text(
    "kernel",
    "ID",
    "boot this kernel in a VM: debian:6.12-cloud, 6.14, a path, or a key of `ktstr kernel list` (default: $KTSTR_KERNEL)"
  )
}

const hardware = {
  engine: Options.choice("engine", ["auto", "kvm", "qemu"]).pipe(
    Options.withDescription(
      "what runs the VM: ktstr itself on /dev/kvm, or QEMU (default auto: the best that works here, see `ktstr doctor`)"
    ),
    Options.optional
  ),
  cpus: count("cpus", 1, `number of guest CPUs (default ${VM_DEFAULTS.cpus})`),
  topology: Options.text("topology").pipe(
    Options.withPseudoName("N,L,C,T"),
    Options.withDescription(
      "in place of --cpus: NUMA nodes, last-level caches in total, cores per cache, threads per core; nodes share the memory "
        + "evenly"
    ),
    Options.mapEffect((text) =>
      Effect.mapError(
        parseTopology(text),
        ({ message }) => ValidationError.invalidValue(HelpDoc.p(`--topology: ${message}`))
      )
    ),
    Options.optional
  ),
  memoryMib: count("memory-mib", 1, `guest memory in MiB (default ${VM_DEFAULTS.memoryMib})`),
  disk: words("disk", "FILE[,ro]", "attach a raw image as the next disk, from /dev/vda on; ,ro: read-only").pipe(
    Options.repeated
  ),
  share: words("share", "DIR[,rw]", "show a folder of the host as /share/NAME; ,rw: the guest may write to it").pipe(
    Options.repeated
  ),
  module: words("module", "NAME", "load this kernel module and its dependencies before the script").pipe(
    Options.repeated
  ),
  kaslr: flag(
    "kaslr",
    "boot with KASLR; without it an emulated guest starts from the unpacked kernel, which takes less time"
  ),
  cmdline: text("cmdline", "WORDS", "extra arguments for the guest kernel's command line"),
  console: text("console", "FILE", "keep the guest's console in this file"),
  timeout: count(
    "timeout",
    1,
    `seconds the guest may take to boot and run the script (default ${VM_DEFAULTS.timeoutSeconds}, of which ` +
      `${VM_DEFAULTS.silenceSeconds} without any output), and then its reading (default: no limit)`
  )
}

const includes = {
  include: words("include", "PATH", "copy a file and its shared libraries into the guest as /include-files/NAME").pipe(
    Options.repeated
  )
}

/** A VM to boot: its kernel, the machine, and what the guest gets. */
export const machine = { ...kernel, ...includes, ...hardware }

/** The script that a guest runs as root when it is up. */
export const script = {
  exec: text("exec", "SCRIPT", "shell commands to run in the guest as root; a guest that is read is frozen after them"),
  execFile: text("exec-file", "FILE", "the same, from a file")
}

/** Sources that are not a VM booted for the command; each command has those of them that it can read. */
export const source = {
  image: text("image", "FILE", "read a guest's memory from this image (raw, ELF or kdump core, LiME)"),
  qemu: text(
    "qemu",
    "SOCKET|fd:N|PID",
    "stop the guest of a QEMU that runs, read it, and let it run on: its QMP socket, an inherited descriptor connected to "
      + "that, or its process id"
  ),
  racy: flag(
    "racy",
    "with --qemu: let the guest run on while it is read, and ask no monitor (libvirt is at its guests'); values of different "
      + "moments do not fit together"
  ),
  live: flag("live", "read the running kernel of this host, by bpf(2)"),
  vmlinux: text("vmlinux", "FILE", "with --image: take symbols and types from this vmlinux, not from the memory")
}

/** A VM that is booted for the command, with a script. */
export const vm = { ...machine, ...script }

/** Which kernel to read while it stands still: an image of its memory, a QEMU that is stopped, or a VM that is booted for it. */
export const frozen = { ...vm, image: source.image, qemu: source.qemu, vmlinux: source.vmlinux }

/** The same, or this host's. */
export const target = { ...vm, ...source }

/** How to print the answer. */
export const output = {
  json: flag("json", "print one JSON document"),
  ndjson: flag("ndjson", "print one JSON record per line, as they are read")
}

/** Whether an answer may have parts missing. */
export const loss = {
  allowPartial: flag("allow-partial", "exit with 0 even if parts of the answer could not be read")
}

/** Which maps, and how many entries of each. */
export const filter = {
  map: words("map", "MAP", "only the maps with this name or id").pipe(Options.repeated),
  type: words("type", "TYPE", "only the maps of this type, e.g. percpu_hash").pipe(Options.repeated),
  limit: count("limit", 0, `print at most N entries per map (default ${TEXT_LIMIT} as text, all as JSON)`),
  inner: flag("inner", "for a map of maps, print the entries of the maps in it too, one level deep")
}

export const out = text("out", "FILE", "write the --json document, or the --ndjson records, to this file")

export const html = text(
  "html",
  "FILE",
  "write a page to this file: it needs no network, and shows its text without JavaScript"
)

export const onFailure = text(
  "on-failure",
  "FILE",
  "when a scheduler, the kernel or the script fails, or time is up: stop the guest at that moment and write its state to "
    + "this file, for `ktstr show`"
)

export const monitor = flag(
  "monitor",
  "with --on-failure: a rule of `ktstr monitor` that the running guest breaks is a failure, too"
)

export const core = text(
  "core",
  "FILE",
  "with --on-failure: write the memory and registers of the same moment to this file, as vm core does"
)

/** Moments of a guest while it runs. */
export const moments = {
  snapshot: words(
    "snapshot",
    "WHEN",
    "stop the guest, write its state, and let it run on: periodic=8/60s, 8 times in the 60 s that the run is expected to take; "
      + "line=REGEX, when a line comes on the console; write=SYMBOL, each time that the kernel changes this variable of its own; "
      + "rule=NAME, when a rule of `ktstr monitor` is broken"
  ).pipe(Options.repeated),
  snapshots: text(
    "snapshots",
    "DIR",
    "the directory for --snapshot, made where it is not there: periodic_000.json, line_001.json, SYMBOL_000.json and so on"
  )
}

const schemaOf = (what: string) => flag("schema", `print the JSON Schema of ${what}, and nothing else`)
export const schema = schemaOf("the --json document")
export const dumpSchema = schemaOf("a failure's dump")

export const dmesg = flag("dmesg", "print the kernel's messages on the console too")

export const mapName = Args.text({ name: "map" }).pipe(Args.withDescription("the map's name or id"))

/** The headings of options in help. */
export const optionGroups: ReadonlyArray<Group> = [
  { title: "Source", names: optionNames(source) },
  { title: "Kernel", names: optionNames(kernel) },
  { title: "Machine", names: optionNames(hardware) },
  { title: "What runs in it", names: optionNames({ ...includes, ...script, dmesg, watchdog }) },
  { title: "Which maps", names: optionNames(filter) },
  {
    title: "Output",
    names: optionNames({ ...output, ...loss, out, schema, onFailure, html, core, monitor, ...moments })
  }
]

/** The parsed options, as handlers take them. */
export type Machine = Command.Command.ParseConfig<typeof machine>
export type Script = Command.Command.ParseConfig<typeof script>
/** Of any command: sources that it does not have are left out. */
export type Target = Command.Command.ParseConfig<typeof vm> & Partial<Command.Command.ParseConfig<typeof source>>
export type Output = Command.Command.ParseConfig<typeof output>
export type Loss = Command.Command.ParseConfig<typeof loss>
export type Filter = Command.Command.ParseConfig<typeof filter>
