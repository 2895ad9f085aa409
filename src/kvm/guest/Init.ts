import type { ConsoleSize } from "../spec/VmEngine.ts"
import { type GuestModule, loadFunction, loadingModules } from "./GuestModules.ts"

/** Where the initramfs keeps the user's script and what `--include` named; relative to the guest's root. */
export const SCRIPT = "ktstr/script"
export const INCLUDES = "include-files"

/** Directories that the init mounts on or writes to, parents first. */
export const initDirectories = ["bin", "dev", "etc", "ktstr", INCLUDES, "proc", "root", "run", "sys", "tmp"]

/**
 * What the init writes on the report channel: `exit` when the script has ended, `shell` when a shell starts after it;
 * group 2 is the script's exit status.
 */
export const exitReport = /^ktstr (exit|shell) (\d{1,3})$/
/** What it wrote, before `exit`, on the console: behind this line the console has all that the script said. */
export const lastWords = /ktstr: the script ended with status \d{1,3}$/

/** What the guest does when it is up. */
export interface InitSpec {
  /** Shell commands, or a script with a `#!` line, to run as root when the guest is up. */
  readonly script?: string | undefined
  /** Kernel modules to load before the script, each behind those it depends on. Where one fails, the script is not run. */
  readonly guestModules?: ReadonlyArray<GuestModule> | undefined
  /** Once the script has ended, end the VM too; if not given it stays. What the script says is then not changed on its way. */
  readonly powerOff?: boolean | undefined
  /** A root shell on the console, for a terminal, after the script; the VM ends with it. */
  readonly shell?: ShellTerminal | undefined
}

/** The terminal that a shell in the guest is used from: its kind ($TERM, $COLORTERM), and its size where that is known. */
export interface ShellTerminal {
  readonly term?: string | undefined
  readonly colorTerm?: string | undefined
  readonly size?: ConsoleSize | undefined
}

/** What a shell's init reads from the report channel. */
export const resizeLine = ({ columns, rows }: ConsoleSize): Uint8Array =>
  new TextEncoder().encode(`rows ${rows} columns ${columns}\n`)

/**
 * The guest's first process: mounts what a BPF or scheduler tool expects, runs the script as root with its output on the
 * console, reports how it ended on ttyS1, where no kernel message can garble it, and stays. What the script left running
 * goes on; whatever ends is reaped, for busybox's shell waits for any child while it waits for `sleep`.
 * @param libraries the guest's directories of shared libraries; its linker has no cache of them
 */
export const initScript = (spec: InitSpec, libraries: ReadonlyArray<string>): string =>
  `#!/bin/busybox sh
export PATH=/${INCLUDES}:/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
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
ip link set lo up
cd /root
${libraries.length === 0 ? "" : `export LD_LIBRARY_PATH=${quoted(libraries.join(":"))}\n`}${
    spec.powerOff === true ? "stty -F /dev/ttyS0 -opost\n" : ""
  }${spec.guestModules === undefined || spec.guestModules.length === 0 ? "" : loadFunction}${
    loadingModules(spec.guestModules ?? [])
  }${runLine(spec.script)}
status=$?
${spec.shell !== undefined ? shellLines(spec.shell) : spec.powerOff === true ? powerOffLines : stayLines}`

const stayLines = `echo "ktstr: the script ended with status $status"
echo "ktstr exit $status" > /dev/ttyS1
while :; do sleep 3600; done
`

/** `stty` waits until the console has sent all; the kernel is silenced, for its farewell is of the highest level. */
const powerOffLines = `stty -F /dev/ttyS0 opost
echo "ktstr exit $status" > /dev/ttyS1
echo 0 > /proc/sys/kernel/printk
reboot -f
`

/** A shell needs a session whose terminal is the console. Sizes come by ttyS1, whose settings last while it is open. */
const shellLines = ({ colorTerm, size, term }: ShellTerminal): string =>
  `exec 3<> /dev/ttyS1
stty -echo < /dev/ttyS1
(while read -r size <&3; do stty -F /dev/ttyS0 $size; done) &
${size === undefined ? "" : `stty -F /dev/ttyS0 rows ${size.rows} columns ${size.columns}\n`}${
    term === undefined ? "" : `export TERM=${quoted(term)}\n`
  }${colorTerm === undefined ? "" : `export COLORTERM=${quoted(colorTerm)}\n`}echo "ktstr shell $status" >&3
setsid -c /bin/busybox sh -l < /dev/ttyS0 > /dev/ttyS0 2>&1 3<&-
stty -F /dev/ttyS0 sane
echo 0 > /proc/sys/kernel/printk
reboot -f
`

/** A script that names its interpreter is executed, any other is busybox's. */
const runLine = (script: string | undefined): string =>
  script === undefined ? "true" : `${script.startsWith("#!") ? "" : "/bin/busybox sh "}/${SCRIPT} < /dev/null`

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`
