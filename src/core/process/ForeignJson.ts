import * as Either from "effect/Either"

/** Objects and arrays in one another, several times what our documents have: more would not fit the stack. */
const DEPTH_LIMIT = 512

/**
 * The value of JSON that came from outside; of other text, and of values that are nested so deep that walking through them
 * would overflow the stack, why it is not read.
 */
export const parseForeignJson = (text: string): Either.Either<unknown, string> =>
  isTooDeep(text)
    ? Either.left(`its values are nested more than ${DEPTH_LIMIT} deep, which no document of ours is`)
    : Either.try({
      try: (): unknown => JSON.parse(text),
      catch: (error) => error instanceof Error ? error.message : String(error)
    })

/** One look at each character, since parsed values could only be looked at by going as deep. */
const isTooDeep = (text: string): boolean => {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22) { // a string: brackets in it count for nothing
      for (at++; at < text.length && text.charCodeAt(at) !== 0x22; at++) if (text.charCodeAt(at) === 0x5c) at++
    } else if (code === 0x5b || code === 0x7b) {
      if (++depth > DEPTH_LIMIT) return true
    } else if (code === 0x5d || code === 0x7d) depth--
  }
  return false
}
