/** Where the initramfs keeps the user's script and what `--include` named; relative to the guest's root. */
export const SCRIPT = "ktstr/script"
export const INCLUDES = "include-files"

/** Directories that the init mounts on or writes to, parents first. */
export const initDirectories = ["bin", "dev", "etc", "ktstr", INCLUDES, "proc", "root", "run", "sys", "tmp"]

/** What the init writes on the report channel when the script has ended; group 1 is its exit status. */
export const exitReport = /^ktstr exit (\d{1,3})$/
/** What it wrote on the console just before: behind this line the console has all that the script said. */
export const lastWords = /ktstr: the script ended with status \d{1,3}$/

/**
 * The guest's first process: mounts what a BPF or scheduler tool expects, runs the script as root with its output on the
 * console, reports how it ended on ttyS1, where no kernel message can garble it, and stays. What the script left running
 * goes on; whatever ends is reaped, for busybox's shell waits for any child while it waits for `sleep`.
 * @param libraries the guest's directories of shared libraries; its linker has no cache of them
 */
export const initScript = (script: string | undefined, libraries: ReadonlyArray<string>): string =>
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
${libraries.length === 0 ? "" : `export LD_LIBRARY_PATH=${quoted(libraries.join(":"))}\n`}${runLine(script)}
status=$?
echo "ktstr: the script ended with status $status"
echo "ktstr exit $status" > /dev/ttyS1
while :; do sleep 3600; done
`

/** A script that names its interpreter is executed, any other is busybox's. */
const runLine = (script: string | undefined): string =>
  script === undefined ? "true" : `${script.startsWith("#!") ? "" : "/bin/busybox sh "}/${SCRIPT} < /dev/null`

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`
