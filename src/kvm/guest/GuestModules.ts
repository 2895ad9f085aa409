import type { CpioEntry } from "./Cpio.ts"

/**
 * A kernel module for the guest: its name as in /proc/modules, and its ELF file.
 *
 * @since 0.1.0
 * @category models
 */
export interface GuestModule {
  readonly name: string
  readonly bytes: Uint8Array
}

/** Where the initramfs keeps modules; relative to the guest's root. */
const DIRECTORY = "ktstr/modules"

/** The modules' files for an initramfs. */
export const moduleEntries = (modules: ReadonlyArray<GuestModule>): ReadonlyArray<CpioEntry> =>
  modules.map(({ bytes, name }) => ({ kind: "file", path: `${DIRECTORY}/${name}.ko`, mode: 0o644, bytes }))

/**
 * Shell that defines `load NAME`, which loads a module with its parameters from the kernel's command line (`NAME.x=y`),
 * as modprobe does, and says on the console if that fails.
 */
export const loadFunction = `load() {
  insmod "/${DIRECTORY}/$1.ko" $(for word in $(cat /proc/cmdline); do
    case "$word" in "$1".*) echo "\${word#*.}" ;; esac
  done) && return
  echo "ktstr: the kernel did not load its module $1"
  return 1
}
`

/** Shell that loads modules in order and goes on where all could be loaded: what follows it is the script. */
export const loadingModules = (modules: ReadonlyArray<GuestModule>): string =>
  modules.map(({ name }) => `load ${name} && `).join("")
