import * as Effect from "effect/Effect"
import { closeSync, openSync, readSync } from "node:fs"
import { VmBootError, type VmSpec } from "../spec/VmEngine.ts"

/**
 * Words before the user's on every command line. `panic=-1`: a panic ends the VM at once. `no_timer_check`: an emulated
 * timer on a busy host fails the check and panics. `cryptomgr.notests`: the ciphers' self-tests are a fifth of an
 * emulated boot (0.6 of 3.2 s).
 */
const words = "console=ttyS0 panic=-1 no_timer_check cryptomgr.notests"

/** The largest part of the header that we read, in bytes. */
const HEADER = 0x260

/**
 * The command line for `spec`, after a check that its kernel is a bzImage that takes one of that length.
 * @see Documentation/arch/x86/boot.rst, v6.12: `boot_flag` 0x1fe, `header` 0x202, `version` 0x206, `cmdline_size` 0x238
 */
export const commandLineFor = (spec: VmSpec): Effect.Effect<string, VmBootError> =>
  Effect.suspend(() => {
    const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
    const cmdline = [words, spec.cmdline?.trim() ?? ""].filter((part) => part !== "").join(" ")
    const header = readHeader(spec.kernel)
    if (typeof header === "string") return broken(header, "give the path of a kernel image (bzImage)")
    if (header.getUint16(0x1fe, true) !== 0xaa55 || header.getUint32(0x202, true) !== 0x53726448) {
      return broken("it is no bzImage", "give the compressed image that boots (boot/vmlinuz-…, arch/x86/boot/bzImage)")
    }
    const limit = header.getUint16(0x206, true) >= 0x206 ? header.getUint32(0x238, true) : 255
    if (Buffer.byteLength(cmdline) > limit) {
      return broken(`its command line takes ${limit} bytes, not ${Buffer.byteLength(cmdline)}`, "shorten --cmdline")
    }
    if (cmdline.includes("\n") || cmdline.includes("\0")) {
      return broken("a command line is one line", "take the line break out of --cmdline")
    }
    return Effect.succeed(cmdline)
  })

const readHeader = (path: string): DataView | string => {
  try {
    const fd = openSync(path, "r")
    try {
      const bytes = new Uint8Array(HEADER)
      return readSync(fd, bytes, 0, HEADER, 0) === HEADER ? new DataView(bytes.buffer) : "it is no bzImage"
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
