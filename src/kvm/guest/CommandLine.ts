import * as Effect from "effect/Effect"
import { VmBootError, type VmSpec } from "../spec/VmEngine.ts"
import { PORTS, type SerialPorts } from "./Init.ts"

/**
 * Words before the user's on every command line. `panic=-1`: a panic ends the VM at once. `no_timer_check`: an emulated
 * timer on a busy host fails the check and panics. `cryptomgr.notests`: the ciphers' self-tests are a fifth of an
 * emulated boot (0.6 of 3.2 s). `rootfstype=ramfs`: the initramfs is unpacked into a file system that takes what memory
 * there is; a tmpfs, as the kernel would make it, takes half of it and leaves out what is too much, and boots on
 * (init/do_mounts.c `init_rootfs`, v6.12).
 */
export const COMMON_WORDS = "panic=-1 no_timer_check cryptomgr.notests rootfstype=ramfs"

/**
 * The command line of a guest: our words, the engine's, the user's.
 * @param limit bytes that the kernel takes
 */
export const commandLine = (
  spec: VmSpec,
  limit: number,
  more: ReadonlyArray<string> = [],
  ports: SerialPorts = PORTS["x86-64"]
): Effect.Effect<string, VmBootError> =>
  Effect.suspend(() => {
    const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
    const cmdline = [`console=${ports.console} ${COMMON_WORDS}`, ...more, spec.cmdline?.trim() ?? ""].filter((part) =>
      part !== ""
    ).join(" ")
    const length = Buffer.byteLength(cmdline)
    if (length > limit) return broken(`command line too long: ${length} bytes, limit ${limit}`, "shorten cmdline")
    if (/[\n\0]/.test(cmdline)) return broken("its command line has a line break or a NUL", "take it out of cmdline")
    return Effect.succeed(cmdline)
  })
