/**
 * The words of the command line: what the parser, the usage errors and the help texts are all made from. Plain data
 * without imports, so that a usage error or `--help` waits for nothing.
 */

/** An option. Without `value` it is a flag; with choices, or with `least` (a whole number), its value is checked. */
export interface OptionWord {
  /** Without the leading `--`. */
  readonly name: string
  readonly about: string
  /** What stands for the value in help texts, or the values that there are. */
  readonly value?: string | ReadonlyArray<string>
  /** The value is a whole number, this or more. */
  readonly least?: number
  /** What is taken when the option is not given. */
  readonly otherwise?: number | string
  readonly repeatable?: boolean
}

/** A command: one with `commands` only groups those. */
export interface CommandWords {
  readonly name: string
  readonly about: string
  readonly argument?: { readonly name: string; readonly about: string }
  readonly options: Readonly<Record<string, OptionWord>>
  readonly commands: ReadonlyArray<CommandWords>
  readonly examples: ReadonlyArray<string>
}

export const targetWords = {
  kernel: {
    name: "kernel",
    value: "ID",
    about: "boot this kernel in a VM: debian:6.12-cloud (Debian's newest of that series), or a path"
  },
  image: { name: "image", value: "FILE", about: "read this image of a guest's memory (raw, or an ELF core)" },
  vmlinux: {
    name: "vmlinux",
    value: "FILE",
    about: "with --image: take symbols and types from this vmlinux, not from the memory"
  },
  include: {
    name: "include",
    value: "PATH",
    about: "put a file, and the libraries it needs, into the guest as /include-files/NAME",
    repeatable: true
  },
  exec: { name: "exec", value: "SCRIPT", about: "shell commands to run in the guest before it is frozen" },
  execFile: { name: "exec-file", value: "FILE", about: "a script to run in the guest before it is frozen" },
  engine: { name: "engine", value: ["auto", "qemu"], about: "what runs the VM", otherwise: "auto" },
  cpus: { name: "cpus", value: "N", least: 1, about: "the guest's CPUs", otherwise: 1 },
  memoryMib: { name: "memory-mib", value: "N", least: 1, about: "the guest's memory in MiB", otherwise: 512 },
  cmdline: { name: "cmdline", value: "WORDS", about: "more words for the guest kernel's command line" },
  console: { name: "console", value: "FILE", about: "keep the guest's console in this file" },
  timeout: {
    name: "timeout",
    value: "SECONDS",
    least: 1,
    about: "how long the guest may take to boot and run the script",
    otherwise: 60
  }
} as const satisfies Record<string, OptionWord>

export const outputWords = {
  json: { name: "json", about: "print one JSON document" },
  ndjson: { name: "ndjson", about: "print one JSON record a line, as they are read" }
} as const satisfies Record<string, OptionWord>

export const filterWords = {
  map: { name: "map", value: "MAP", about: "only the maps with this name or id", repeatable: true },
  type: { name: "type", value: "TYPE", about: "only the maps of this type, as in percpu_hash", repeatable: true },
  limit: {
    name: "limit",
    value: "N",
    least: 0,
    about: "print at most N entries a map; without it 64 for people, all in JSON"
  }
} as const satisfies Record<string, OptionWord>

export const schemaWord = {
  name: "schema",
  about: "print the JSON Schema of the --json document, and nothing else"
} as const satisfies OptionWord

/** What @effect/cli understands besides, everywhere; `--help` and `--version` are answered before it is loaded. */
export const commonWords: ReadonlyArray<OptionWord> = [
  { name: "help", about: "print this (-h for short)" },
  { name: "version", about: "print the version" },
  { name: "completions", value: ["bash", "fish", "zsh", "sh"], about: "print a completion script for this shell" },
  {
    name: "log-level",
    value: ["all", "trace", "debug", "info", "warning", "error", "fatal", "none"],
    about: "how much to log on stderr"
  },
  { name: "wizard", about: "ask for each option, then run the command" }
]

export const mapWord = { name: "map", about: "the map's name or id" } as const

const leaf = { commands: [], examples: [] } as const

const dump: CommandWords = {
  ...leaf,
  name: "dump",
  about: "Print the BPF maps of a frozen kernel, entry by entry, with their C types",
  options: { ...targetWords, ...outputWords, ...filterWords, schema: schemaWord },
  examples: [
    "ktstr dump --image guest.mem",
    "ktstr dump --kernel debian:6.12-cloud --include /usr/sbin/bpftool --include my.bpf.o \\",
    "  --exec 'bpftool prog loadall /include-files/my.bpf.o /sys/fs/bpf/p pinmaps /sys/fs/bpf/m' --json"
  ]
}

const list: CommandWords = {
  ...leaf,
  name: "list",
  about: "List the BPF maps of a frozen kernel",
  options: { ...targetWords, ...outputWords, type: filterWords.type, map: filterWords.map },
  examples: ["ktstr maps list --image guest.mem"]
}

const show: CommandWords = {
  ...leaf,
  name: "show",
  about: "Print one map: what it is, and its entries",
  argument: mapWord,
  options: { ...targetWords, ...outputWords, limit: filterWords.limit },
  examples: ["ktstr maps show --image guest.mem my_map"]
}

const maps: CommandWords = {
  ...leaf,
  name: "maps",
  about: "List the BPF maps of a frozen kernel, or show one",
  options: {},
  commands: [list, show]
}

const doctor: CommandWords = {
  ...leaf,
  name: "doctor",
  about: "Say what this host has and lacks, what that means, and how to mend it",
  options: { json: outputWords.json }
}

/** The whole command line. */
export const words = {
  ...leaf,
  name: "ktstr",
  about: "Boot a Linux kernel in a throw-away VM, freeze it, and show its BPF maps with C types, from its memory alone",
  options: {},
  commands: [dump, maps, doctor]
} as const satisfies CommandWords

/** The words of each command that does something. */
export const commandWords = { dump, list, show, maps, doctor }
