const CLOSE = "}\n"

/** A document that ends with `CLOSE`, and members, each already as UTF-8, at its end. */
export const withMembers = (
  document: ReadonlyArray<Uint8Array>,
  members: { readonly [name: string]: ReadonlyArray<Uint8Array> }
): ReadonlyArray<Uint8Array> => {
  const last = document[document.length - 1]
  return [
    ...document.slice(0, -1),
    last.subarray(0, last.length - CLOSE.length),
    ...Object.entries(members).flatMap(([name, value]) => [Buffer.from(`,\n"${name}":`), ...value]),
    Buffer.from(CLOSE)
  ]
}
