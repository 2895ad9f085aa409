import { gunzipSync } from "node:zlib"
import { FormatError } from "../../FormatError.ts"

const START = "IKCFG_ST"
const END = "IKCFG_ED"
/** Limit of an unpacked `.config`, which has about 300 KB. */
const LONGEST_CONFIG = 2 ** 24

/**
 * The `.config` that a kernel with CONFIG_IKCONFIG carries, or undefined: a gzip stream between two marks.
 * @param vmlinux the uncompressed kernel
 * @throws FormatError where the marks hold no gzip stream; wrap in `parsing`
 * @see kernel/configs.c, v6.12
 * @since 0.1.0
 * @category reading
 */
export const ikconfigOf = (vmlinux: Uint8Array, subject: string): string | undefined => {
  const bytes = Buffer.from(vmlinux.buffer, vmlinux.byteOffset, vmlinux.byteLength)
  // the mark itself is also a string of programs that look for it, so it counts only with gzip's magic behind it
  for (let at = bytes.indexOf(START); at >= 0; at = bytes.indexOf(START, at + 1)) {
    const start = at + START.length
    if (bytes[start] !== 0x1f || bytes[start + 1] !== 0x8b) continue
    const end = bytes.indexOf(END, start)
    try {
      return gunzipSync(bytes.subarray(start, end < 0 ? undefined : end), { maxOutputLength: LONGEST_CONFIG })
        .toString("utf8")
    } catch {
      throw new FormatError({
        format: "kernel image",
        subject,
        offset: start,
        expected: "a gzip stream with the config"
      })
    }
  }
  return undefined
}
