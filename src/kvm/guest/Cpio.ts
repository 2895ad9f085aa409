/** One entry of an archive; `path` is relative, `mode` the permission bits alone. Everything belongs to root. */
export type CpioEntry =
  | { readonly kind: "directory"; readonly path: string; readonly mode: number }
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly bytes: Uint8Array }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string }
  | {
    readonly kind: "character device"
    readonly path: string
    readonly mode: number
    readonly major: number
    readonly minor: number
  }

/** The largest file that the format's 32-bit size field can say, in bytes. */
const CPIO_FILE_LIMIT = 2 ** 32 - 1

const HEADER = 110
const text = new TextEncoder()
const fileType = { "directory": 0o040000, "file": 0o100000, "symlink": 0o120000, "character device": 0o020000 } as const

/**
 * A "newc" archive of `entries` in the order given, as the kernel unpacks an initramfs: a directory comes before what it
 * holds. The same entries give the same bytes (times are 0, inode numbers count up from 1).
 * @throws RangeError when a file is larger than `CPIO_FILE_LIMIT`
 * @see Documentation/driver-api/early-userspace/buffer-format.rst, v6.12
 */
export const cpioArchive = (entries: ReadonlyArray<CpioEntry>): Uint8Array => {
  const members = entries.map((entry) => ({ entry, name: text.encode(entry.path), body: bodyOf(entry) }))
  const trailer = text.encode("TRAILER!!!")
  const out = new Uint8Array(
    members.reduce((sum, { body, name }) => sum + sizeOf(name, body), sizeOf(trailer, nothing))
  )
  let at = 0
  const write = (name: Uint8Array, body: Uint8Array, fields: ReadonlyArray<number>) => {
    text.encodeInto(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`, out.subarray(at))
    out.set(name, at + HEADER)
    out.set(body, at + aligned(HEADER + name.length + 1))
    at += sizeOf(name, body)
  }
  members.forEach(({ body, entry, name }, index) => {
    if (body.length > CPIO_FILE_LIMIT) throw new RangeError(`${entry.path} is too large for a cpio archive`)
    const mode = fileType[entry.kind] | (entry.kind === "symlink" ? 0o777 : entry.mode)
    const [major, minor] = entry.kind === "character device" ? [entry.major, entry.minor] : [0, 0]
    const links = entry.kind === "directory" ? 2 : 1
    // c_ino, mode, uid, gid, nlink, mtime, filesize, dev major and minor, rdev major and minor, namesize, check
    write(name, body, [index + 1, mode, 0, 0, links, 0, body.length, 0, 0, major, minor, name.length + 1, 0])
  })
  write(trailer, nothing, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, trailer.length + 1, 0])
  return out
}

const nothing = new Uint8Array(0)
const aligned = (bytes: number): number => Math.ceil(bytes / 4) * 4
const sizeOf = (name: Uint8Array, body: Uint8Array): number => aligned(HEADER + name.length + 1) + aligned(body.length)
const bodyOf = (entry: CpioEntry): Uint8Array =>
  entry.kind === "file" ? entry.bytes : entry.kind === "symlink" ? text.encode(entry.target) : nothing
