import * as Effect from "effect/Effect"
import { Buffer } from "node:buffer"
import { gunzip } from "node:zlib"
import { FormatError } from "../FormatError.ts"

/** The longest output that `decompress` makes: 512 MiB, ten times a distribution's kernel. */
export const MAX_OUTPUT = 512 * 2 ** 20

/**
 * Decompress gzip, zstd, legacy LZ4 or xz (told apart by their first bytes) into exactly `size` bytes, never more than
 * `MAX_OUTPUT`. Data that would overflow or underfill that are a `FormatError`, as is a checksum that does not match
 * (legacy LZ4 has none).
 * @param subject what errors call the data
 * @since 0.1.0
 * @category parsing
 */
export const decompress = Effect.fn("Decompress.decompress")(
  function*(bytes: Uint8Array, size: number, subject: string): Effect.fn.Return<Uint8Array, FormatError> {
    const format = formats.find(({ magic }) => magic.every((byte, i) => bytes[i] === byte))
    if (format?.decode === undefined) {
      const found = format === undefined ? "" : `, found ${format.name}`
      return yield* broken(subject, 0, `gzip, zstd, lz4 (legacy) or xz data${found}`)
    }
    if (size > MAX_OUTPUT) return yield* broken(subject, 0, `at most ${MAX_OUTPUT} bytes of output, not ${size}`)
    const output = yield* format.decode(bytes, size, subject)
    if (output.length === size) return output
    return yield* broken(subject, bytes.length, `${size} bytes of output, found ${output.length}`)
  }
)

/** Whether the bytes start like one of the formats of `decompress`. */
export const isCompressed = (bytes: Uint8Array): boolean =>
  formats.some(({ magic }) => magic.every((byte, i) => bytes[i] === byte))

/**
 * Decompress gzip, zstd or xz of a size that is not known beforehand, into `limit` bytes at most; data with more are a
 * `FormatError`. zstd data must say their size in their frame, as those of the `zstd` command do.
 *
 * @since 0.1.0
 * @category parsing
 */
export const decompressWithin = Effect.fn("Decompress.decompressWithin")(
  function*(bytes: Uint8Array, limit: number, subject: string): Effect.fn.Return<Uint8Array, FormatError> {
    const format = formats.find(({ magic }) => magic.every((byte, i) => bytes[i] === byte))?.name
    switch (format) {
      case "gzip":
        return yield* decodeGzip(bytes, limit, subject)
      case "xz":
        return yield* decodeXz(bytes, limit, subject)
      case "zstd": {
        const size = zstdHeader(bytes)?.contentSize
        if (size === undefined || size > limit) {
          return yield* broken(subject, 4, `a zstd frame that says its size, of at most ${limit} bytes`)
        }
        return yield* decodeZstd(bytes, size, subject)
      }
      default:
        return yield* broken(subject, 0, `gzip, zstd or xz data${format === undefined ? "" : `, found ${format}`}`)
    }
  }
)

const broken = (subject: string, offset: number, expected: string): FormatError =>
  new FormatError({ format: "compressed data", subject, offset, expected })

type Decode = (bytes: Uint8Array, size: number, subject: string) => Effect.Effect<Uint8Array, FormatError>

const decodeGzip: Decode = (bytes, size, subject) =>
  Effect.async((resume) =>
    gunzip(bytes, { maxOutputLength: Math.max(size, 1) }, (error, output) =>
      resume(
        error === null
          ? Effect.succeed(output)
          : Effect.fail(broken(subject, 0, `sound gzip data (${error.message})`))
      ))
  )

/**
 * zstd by the reference implementation. It allocates what the frame header says the content is, and grows without a
 * limit of ours where that is absent, as in kernels (compressed from a pipe): so write the size into the header, and the
 * library checks it too.
 */
const decodeZstd: Decode = (bytes, size, subject) =>
  Effect.suspend(() => {
    const frame = withContentSize(bytes, size)
    if (frame === undefined) return Effect.fail(broken(subject, 4, `a zstd frame of ${size} bytes of content`))
    return Effect.tryPromise({
      try: async () => {
        const { default: Zstd } = await import("numcodecs/zstd") // 0.7 MB of code that few runs need
        return Zstd.fromConfig({ id: "zstd" }).decode(frame)
      },
      catch: (error) =>
        broken(subject, 0, `sound zstd data (${error instanceof Error ? error.message : String(error)})`)
    })
  })

/**
 * From a zstd frame's header: the place of its content size, and that size (undefined if not stated); undefined where
 * there is no whole header.
 * @see RFC 8878, 3.1.1.1 "Frame Header"
 */
const zstdHeader = (bytes: Uint8Array): { sizeAt: number; contentSize: number | undefined } | undefined => {
  if (bytes.length < 18) return undefined // the longest header
  const descriptor = bytes[4]
  const sizeFlag = descriptor >> 6
  const singleSegment = (descriptor & 0x20) !== 0
  const sizeAt = 5 + (singleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3] // window descriptor, dictionary id
  if (sizeFlag === 0 && !singleSegment) return { sizeAt, contentSize: undefined }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const contentSize = [
    () => bytes[sizeAt],
    () => view.getUint16(sizeAt, true) + 256,
    () => view.getUint32(sizeAt, true),
    () => Number(view.getBigUint64(sizeAt, true))
  ][sizeFlag]()
  return { sizeAt, contentSize }
}

/** The frame with `size` as its content size; undefined where it says another one or has no whole header. */
const withContentSize = (bytes: Uint8Array, size: number): Uint8Array | undefined => {
  const header = zstdHeader(bytes)
  if (header === undefined) return undefined
  const { contentSize, sizeAt } = header
  if (contentSize !== undefined) return contentSize === size ? bytes : undefined
  const frame = new Uint8Array(bytes.length + 4)
  frame.set(bytes.subarray(0, sizeAt))
  frame[4] = bytes[4] | 0x80 // a content size of four bytes
  new DataView(frame.buffer).setUint32(sizeAt, size, true)
  frame.set(bytes.subarray(sizeAt), sizeAt + 4)
  return frame
}

/** A block of a legacy LZ4 frame holds this many bytes when unpacked, the last one fewer. */
const LZ4_BLOCK = 8 * 2 ** 20

/**
 * The legacy LZ4 frame (`lz4 -l`), which is the one the kernel's build makes: after the magic, blocks behind their packed
 * length each. The library unpacks a block behind its bound.
 * @see doc/lz4_Frame_format.md of the lz4 project, "Legacy frame"; lib/decompress_unlz4.c, v6.12
 */
const decodeLz4: Decode = (bytes, size, subject) =>
  Effect.gen(function*() {
    const { uncompress } = yield* Effect.promise(() => import("lz4-napi"))
    const output = new Uint8Array(size)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    let filled = 0
    for (let at = 4; at < bytes.length;) {
      const packed = at + 4 <= bytes.length ? view.getUint32(at, true) : Infinity
      if (at + 4 + packed > bytes.length) return yield* broken(subject, at, "an LZ4 block inside the frame")
      const most = Math.min(LZ4_BLOCK, size - filled) // the library makes room for all of it
      if (most === 0) return yield* broken(subject, at, `${size} bytes of output, found more`)
      const block = Buffer.alloc(4 + packed)
      block.writeUInt32LE(most)
      block.set(bytes.subarray(at + 4, at + 4 + packed), 4)
      const piece = yield* Effect.tryPromise({
        try: () => uncompress(block),
        catch: (error) =>
          broken(subject, at, `a sound LZ4 block (${error instanceof Error ? error.message : String(error)})`)
      })
      output.set(piece, filled)
      filled += piece.length
      at += 4 + packed
    }
    return output.subarray(0, filled)
  })

/** Memory that liblzma may use: the kernel's build uses dictionaries up to 128 MiB (scripts/xz_wrap.sh, v6.12). */
const XZ_MEMORY = 192 * 2 ** 20

const decodeXz: Decode = (bytes, size, subject) =>
  Effect.tryPromise({
    try: async (signal) => {
      const { default: lzma } = await import("lzma-native")
      const stream = lzma.createStream("streamDecoder", { memlimit: XZ_MEMORY })
      stream.end(bytes)
      const pieces: Array<Uint8Array> = []
      let filled = 0
      for await (const piece of stream) {
        if (signal.aborted) break
        if (filled + piece.length > size) throw new Error(`it has more than ${size} bytes`)
        pieces.push(piece)
        filled += piece.length
      }
      const output = Buffer.concat(pieces, filled)
      return new Uint8Array(output.buffer, output.byteOffset, output.length)
    },
    catch: (error) => broken(subject, 0, `sound xz data (${error instanceof Error ? error.message : String(error)})`)
  })

/** Compression formats of kernels. Those without a decoder are listed only for a clear message. */
const formats: ReadonlyArray<{ name: string; magic: ReadonlyArray<number>; decode?: Decode }> = [
  { name: "gzip", magic: [0x1f, 0x8b], decode: decodeGzip },
  { name: "zstd", magic: [0x28, 0xb5, 0x2f, 0xfd], decode: decodeZstd },
  { name: "lz4", magic: [0x02, 0x21, 0x4c, 0x18], decode: decodeLz4 },
  { name: "xz", magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], decode: decodeXz },
  { name: "bzip2", magic: [0x42, 0x5a, 0x68] },
  { name: "lzma", magic: [0x5d, 0x00, 0x00] },
  { name: "lzo", magic: [0x89, 0x4c, 0x5a, 0x4f] }
]
