import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { FormatError, parsing } from "../FormatError.ts"
import { decompress } from "./Decompress.ts"

/** `HdrS`, little-endian, at byte 0x202 of a bzImage. */
const SETUP_MAGIC = 0x53726448
/** Boot protocol 2.08 (kernel 2.6.26) brought the payload's place. */
const PAYLOAD_PROTOCOL = 0x208
const SETUP_END = 0x268
const SECTOR = 512
const ELF_MAGIC = 0x7f454c46
/** Far more than `uname -r` can be (64 bytes, include/uapi/linux/utsname.h). */
const MAX_RELEASE = 256

/**
 * The ELF kernel inside a kernel image: a bzImage's payload, decompressed; a plain vmlinux is given back as it is.
 * @param bytes the whole file
 * @param subject what errors call it, usually its path
 * @see Documentation/arch/x86/boot.rst, v6.12: setup_sects, payload_offset, payload_length
 * @since 0.1.0
 * @category reading
 */
export const vmlinuxOf = Effect.fn("KernelImage.vmlinuxOf")(
  function*(bytes: Uint8Array, subject: string): Effect.fn.Return<Uint8Array, FormatError> {
    if (isElf(bytes)) return bytes
    const { data, size } = yield* parsing(() => payloadOf(bytes, subject))
    const vmlinux = yield* decompress(data, size, subject)
    if (isElf(vmlinux)) return vmlinux
    return yield* new FormatError({
      format: "kernel image",
      subject,
      offset: 0,
      expected: "an ELF file as its payload"
    })
  }
)

/**
 * The release (`uname -r`) of a kernel image: from a bzImage's header, for which its first 64 KiB are enough, or from the
 * banner inside a vmlinux, which these bytes must hold.
 * @see Documentation/arch/x86/boot.rst, v6.12: kernel_version; init/version-timestamp.c linux_banner, v6.12
 * @since 0.1.0
 * @category reading
 */
export const releaseOf = (bytes: Uint8Array, subject: string): Either.Either<string, FormatError> =>
  parsing(() => {
    if (isElf(bytes)) {
      const release = bannerRelease(bytes)
      if (release !== undefined) return release
      throw new FormatError({ format: "kernel image", subject, offset: 0, expected: "a \"Linux version\" banner" })
    }
    const view = setupOf(bytes, subject)
    const at = view.getUint16(0x20e, true) + SECTOR
    const end = Math.min(at + MAX_RELEASE, bytes.length)
    const text = Buffer.from(bytes.subarray(at, end)).toString("latin1")
    const release = /^[^\s\0]+/.exec(text)?.[0]
    if (view.getUint16(0x20e, true) !== 0 && release !== undefined) return release
    throw new FormatError({ format: "kernel image", subject, offset: 0x20e, expected: "a kernel_version string" })
  })

/** The release in the first `Linux version …` banner of these bytes. */
export const bannerRelease = (bytes: Uint8Array): string | undefined => {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const prefix = "Linux version "
  for (let at = text.indexOf(prefix); at >= 0; at = text.indexOf(prefix, at + 1)) {
    const start = at + prefix.length
    const release = /^(\d+\.\d+\S*) /.exec(text.toString("latin1", start, start + MAX_RELEASE))
    if (release !== null) return release[1]
  }
  return undefined
}

/** Whether the bytes start like an ELF file. */
export const isElf = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, false) === ELF_MAGIC

/** "ARM\x64" at byte 56; Documentation/arch/arm64/booting.rst, v6.12. */
const ARM64_MAGIC = 0x644d_5241

/** Whether the bytes start like an arm64 kernel's `Image`. */
export const isArm64Image = (bytes: Uint8Array): boolean =>
  bytes.length >= 64 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(56, true) === ARM64_MAGIC

/** Whether the bytes (512 and more of them) start like a bzImage. */
export const isBzImage = (bytes: Uint8Array): boolean =>
  bytes.length >= SETUP_END && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0x202, true) === SETUP_MAGIC

const setupOf = (bytes: Uint8Array, subject: string): DataView => {
  if (!isBzImage(bytes)) {
    throw new FormatError({
      format: "kernel image",
      subject,
      offset: 0,
      expected: "a bzImage (HdrS at byte 0x202) or an ELF vmlinux"
    })
  }
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** The compressed kernel and the size it decompresses to. */
const payloadOf = (bytes: Uint8Array, subject: string): { data: Uint8Array; size: number } => {
  const broken = (offset: number, expected: string) =>
    new FormatError({ format: "kernel image", subject, offset, expected })
  const view = setupOf(bytes, subject)
  if (view.getUint16(0x206, true) < PAYLOAD_PROTOCOL) throw broken(0x206, "boot protocol 2.08 or later")
  const setupSectors = bytes[0x1f1] === 0 ? 4 : bytes[0x1f1] // boot.rst: 0 means 4
  const start = (setupSectors + 1) * SECTOR + view.getUint32(0x248, true)
  const length = view.getUint32(0x24c, true)
  if (length < 8) throw broken(0x24c, `a payload, not ${length} bytes`)
  if (start + length > bytes.length) {
    throw broken(
      0x248,
      `a payload of ${length} bytes at ${start} inside the ${bytes.length} bytes: the file is truncated`
    )
  }
  // The last word is the decompressed size: a part of gzip's format, appended by the build to all others
  // (arch/x86/boot/compressed/mkpiggy.c; scripts/Makefile.lib size_append, v6.12)
  const size = view.getUint32(start + length - 4, true)
  const gzip = view.getUint16(start, true) === 0x8b1f
  return { data: bytes.subarray(start, start + length - (gzip ? 0 : 4)), size }
}
