import * as Either from "effect/Either"
import { Btf } from "../../btf/Btf.ts"
import { bytesCodec, type Codec, compile } from "../../btf/render/Codec.ts"

/** A blob of BTF, and its base, as plain data. */
interface BtfData {
  readonly bytes: Uint8Array
  readonly subject: string
  readonly base: BtfData | undefined
}

/** A codec as plain data, of which another thread makes the same. */
export type CodecData = { readonly btf: BtfData; readonly typeId: number } | { readonly size: number }

/** Undefined of a codec that is made of more than a type: one that follows pointers. */
export const codecData = ({ origin }: Codec): CodecData | undefined =>
  origin === undefined || "size" in origin ? origin : { btf: btfData(origin.btf), typeId: origin.typeId }

const btfData = ({ base, bytes, subject }: Btf): BtfData => ({ bytes, subject, base: base && btfData(base) })

/** The codec that `codecData` was given. */
export const codecOfData = (data: CodecData): Codec =>
  "size" in data ? bytesCodec(data.size) : compile(btfOf(data.btf), data.typeId)

const btfOf = ({ base, bytes, subject }: BtfData): Btf =>
  Either.getOrThrow(Btf.parse(bytes, base === undefined ? { subject } : { subject, base: btfOf(base) }))
