import type { RenderedValue } from "../../btf/render/RenderedValue.ts"
import { intOf, objectOf, pointerOf, stringOf } from "./DerivedCodec.ts"

/** A map or program, as values that refer to it show it. */
export interface Named {
  readonly name: string
  readonly type: string
}

/** `{ id, name, type }`; the id alone where the source has no such object. */
export const namedObject = (id: number, known: Named | undefined): RenderedValue =>
  objectOf({
    id: intOf(id),
    name: known === undefined ? undefined : stringOf(known.name),
    type: known === undefined ? undefined : stringOf(known.type)
  })

/** An address of code as /proc/kallsyms name it, `do_syscall_64+0x5a`; the address alone without a symbol. */
export const codeAddress = (
  address: bigint,
  symbol: { readonly name: string; readonly offset: bigint | number } | undefined
): RenderedValue =>
  symbol === undefined ? pointerOf(address) : stringOf(`${symbol.name}+0x${symbol.offset.toString(16)}`)
