import { posix } from "node:path"
import { shellQuote } from "../../core/process/ShellQuote.ts"
import type { Share } from "../spec/Share.ts"
import type { ConsoleSize } from "../spec/VmEngine.ts"
import { type GuestModule, loadFunction, loadingModules } from "./GuestModules.ts"
import { mountingShares, shareFunction } from "./GuestShares.ts"

/** Where the initramfs keeps the user's script and what `--include` named; relative to the guest's root. */
export const SCRIPT = "ktstr/script"
export const INCLUDES = "include-files"
/**
 * The archive's last file. The kernel stops unpacking at the first byte for which there is no room, behind a file that
 * already has its full size, so only what comes after it is missing.
 */
export const COMPLETE = "ktstr/complete"

/** Directories that the init mounts on or writes to, parents first. */
export const initDirectories = ["bin", "dev", "etc", "ktstr", INCLUDES, "proc", "root", "run", "sys", "tmp"]

/**
 * The lines that the init writes on the report channel: `up` when it takes commands; `exit` when the script has ended,
 * `shell` when a shell starts after it, with the script's exit status.
 */
export const upReport = /^ktstr up$/
export const exitReport = /^ktstr (exit|shell) (\d{1,3})$/
/** In place of all else: files and bytes that were unpacked, and how many they should have been. */
export const incompleteReport = /^ktstr incomplete (\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15})$/
/** Answers to command number N: a piece of it was taken; a line of its output in base64; its status and output's bytes. */
export const partReport = /^ktstr part (\d{1,9})$/
export const outputReport = /^ktstr output (\d{1,9}) ([A-Za-z0-9+/=]{1,100})$/
export const doneReport = /^ktstr done (\d{1,9}) (\d{1,3}) (\d{1,15})$/
/** The line that the init writes on the console before `exit`: all output of the script comes before it. */
export const scriptEnded = /ktstr: the script ended with status \d{1,3}$/

/**
 * The work of the guest when it is up.
 *
 * @since 0.1.0
 * @category models
 */
export interface InitSpec {
  /** Shell commands, or a script with a `#!` line, to run as root when the guest is up. */
  readonly script?: string | undefined
  /** Kernel modules to load before the script, each behind those it depends on. Where one fails, the script is not run. */
  readonly guestModules?: ReadonlyArray<GuestModule> | undefined
  /** Folders of the host to mount in /share; the VM is to have the same. Where one fails, the script is not run. */
  readonly shares?: ReadonlyArray<Share> | undefined
  /**
   * Once the script has ended, end the VM too, or leave that to the host; if not given it stays. What the script says is
   * then not changed on its way.
   */
  readonly powerOff?: boolean | "byHost" | undefined
  /** A root shell on the console, for a terminal, after the script; the VM ends with it. */
  readonly shell?: ShellTerminal | undefined
}

/**
 * The terminal that a shell in the guest is used from: its kind ($TERM, $COLORTERM), and its size where that is known.
 *
 * @since 0.1.0
 * @category models
 */
export interface ShellTerminal {
  readonly term?: string | undefined
  readonly colorTerm?: string | undefined
  readonly size?: ConsoleSize | undefined
}

/** The lines that the init reads from the report channel: the terminal's size … */
export const resizeLine = ({ columns, rows }: ConsoleSize): Uint8Array =>
  new TextEncoder().encode(`rows ${sizeOf(rows)} columns ${sizeOf(columns)}\n`)

/** 16 bits, as struct winsize has. */
const sizeOf = (count: number): number => Math.max(1, Math.min(65_535, Math.trunc(count) || 1))

/** … a piece of command number N, in base64 … */
export const partLine = (number: number, base64: string): Uint8Array =>
  new TextEncoder().encode(`part ${number} ${base64}\n`)

/** … and that it is whole, to be run, and how many bytes of its output are wanted at most. */
export const execLine = (number: number, outputBytes: number): Uint8Array =>
  new TextEncoder().encode(`exec ${number} ${outputBytes}\n`)

/** The names of a machine's serial ports, as in /dev. */
export interface SerialPorts {
  readonly console: string
  /** A 8250's, number 64 and on of major 4. */
  readonly report: string
}

/** QEMU's pc and our own VMM; QEMU's virt has one PL011, and the report on PCI. */
export const PORTS = {
  "x86-64": { console: "ttyS0", report: "ttyS1" },
  arm64: { console: "ttyAMA0", report: "ttyS0" }
} as const

/** The facts about its initramfs that an init needs. */
export interface InitContents {
  readonly ports: SerialPorts
  /** The guest's directories of shared libraries; its linker has no cache of them. */
  readonly libraryDirectories: ReadonlyArray<string>
  /** Libraries whose path is under a mount point: `/ktstr/under` has them, and a link is made where they belong. */
  readonly hidden: ReadonlyArray<string>
  /** Regular files of the archive but the init itself, and the bytes that their sizes add up to. */
  readonly files: number
  readonly bytes: number
}

/** Where libraries are that a mount would hide; relative to the guest's root. */
export const UNDER = "ktstr/under"
/** Directories that the init mounts on and that programs put files into. */
const mountPoints = ["/tmp/", "/run/", "/dev/"]
export const isUnderMount = (path: string): boolean => mountPoints.some((mount) => path.startsWith(mount))

/**
 * The guest's first process. It checks that all of the initramfs was unpacked, mounts what a BPF or scheduler tool
 * expects, takes commands on the report's port, runs the script as root with its output on the console, reports how it ended
 * on that port, where no kernel message can garble it, and stays. What the script left running goes on; children are reaped,
 * because busybox sh waits for any child while it waits for `sleep`.
 */
export const initScript = (spec: InitSpec, contents: InitContents): string =>
  `#!/bin/busybox sh
export PATH=/${INCLUDES}:/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
console=/dev/${contents.ports.console}
exec 3<> /dev/${contents.ports.report}
/bin/busybox stty -echo < /dev/${contents.ports.report}
set -- $(/bin/busybox find / -xdev -type f ! -path /init -exec /bin/busybox stat -c %s {} + |
  /bin/busybox awk '{ files++; bytes += $1 } END { printf "%.0f %.0f", files, bytes }')
if [ "\${1:-0}" -lt ${contents.files} ] || [ "\${2:-0}" -lt ${contents.bytes} ] ||
  [ "$(/bin/busybox cat /${COMPLETE})" != complete ]; then
  echo "ktstr incomplete \${1:-0} \${2:-0} ${contents.files} ${contents.bytes}" >&3
  while :; do /bin/busybox sleep 3600; done
fi
mounted() { # TYPE DIRECTORY
  /bin/busybox mkdir -p "$2" 2>/dev/null
  /bin/busybox mount -t "$1" "$1" "$2" || echo "ktstr: this kernel cannot mount $1 on $2"
}
optional() {
  [ -d "$2" ] && /bin/busybox mount -t "$1" "$1" "$2" 2>/dev/null
}
mounted proc /proc
mounted sysfs /sys
mounted devtmpfs /dev
mounted tmpfs /tmp
mounted tmpfs /run
mounted cgroup2 /sys/fs/cgroup
mounted bpf /sys/fs/bpf
optional tracefs /sys/kernel/tracing
optional debugfs /sys/kernel/debug
mounted devpts /dev/pts
mounted tmpfs /dev/shm
/bin/busybox --install -s /bin
${contents.hidden.map(linkLine).join("")}ip link set lo up
cd /root
${
    contents.libraryDirectories.length === 0
      ? ""
      : `export LD_LIBRARY_PATH=${shellQuote(contents.libraryDirectories.join(":"))}\n`
  }${commandLines}${endsVm(spec) ? "stty -F $console -opost\n" : ""}${
    spec.guestModules === undefined || spec.guestModules.length === 0 ? "" : loadFunction
  }${spec.shares === undefined || spec.shares.length === 0 ? "" : shareFunction}${
    loadingModules(spec.guestModules ?? [])
  }${mountingShares(spec.shares ?? [])}${runLine(spec.script)}
status=$?
${spec.shell !== undefined ? shellLines(spec.shell) : endsVm(spec) ? powerOffLines(spec) : stayLines}`

const endsVm = ({ powerOff }: InitSpec): boolean => powerOff === true || powerOff === "byHost"

const linkLine = (path: string): string =>
  `mkdir -p ${shellQuote(posix.dirname(path))}; ln -s ${shellQuote(`/${UNDER}${path}`)} ${shellQuote(path)}\n`

/** Runs what the host sends on the report's port, one command after the other. Its settings last while it is open. */
const commandLines = `commands() {
  cd /ktstr
  while read -r verb number rest <&3; do
    case "$verb" in
    rows) stty -F $console rows "$number" $rest ;;
    part) printf %s "$rest" >> "command$number"; echo "ktstr part $number" >&3 ;;
    exec)
      base64 -d "command$number" > "script$number"
      (cd /root; exec /bin/busybox sh "/ktstr/script$number") < /dev/null > "output$number" 2>&1 3<&-
      status=$?
      bytes=$(stat -c %s "output$number")
      head -c "$rest" "output$number" | base64 | sed "s/^/ktstr output $number /" >&3
      echo "ktstr done $number $status $bytes" >&3
      rm -f "command$number" "script$number" "output$number" ;;
    esac
  done
}
commands &
echo "ktstr up" >&3
`

const stayLines = `echo "ktstr: the script ended with status $status"
echo "ktstr exit $status" >&3
while :; do sleep 3600; done
`

/** `stty` waits until the console has sent all; printk is silenced: "reboot: Power down" is logged at KERN_EMERG. */
const powerOffLines = ({ powerOff }: InitSpec): string =>
  `stty -F $console opost
echo "ktstr exit $status" >&3
${powerOff === "byHost" ? "while :; do sleep 3600; done\n" : ""}echo 0 > /proc/sys/kernel/printk
reboot -f
`

/** A shell needs a session whose terminal is the console. */
const shellLines = ({ colorTerm, size, term }: ShellTerminal): string =>
  `${size === undefined ? "" : `stty -F $console rows ${size.rows} columns ${size.columns}\n`}${
    term === undefined ? "" : `export TERM=${shellQuote(term)}\n`
  }${colorTerm === undefined ? "" : `export COLORTERM=${shellQuote(colorTerm)}\n`}echo "ktstr shell $status" >&3
setsid -c /bin/busybox sh -l < $console > $console 2>&1 3<&-
stty -F $console sane
echo 0 > /proc/sys/kernel/printk
reboot -f
`

/** A script that names its interpreter is executed, any other is busybox's. */
const runLine = (script: string | undefined): string =>
  script === undefined ? "true" : `${script.startsWith("#!") ? "" : "/bin/busybox sh "}/${SCRIPT} < /dev/null 3<&-`
