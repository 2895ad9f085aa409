/** C0 and C1 controls but the newline, DEL, and what turns the direction of text or breaks lines. */
// oxlint-disable-next-line no-control-regex -- they are what it looks for
const controls = /[\0-\t\v-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g

/**
 * Text from a guest, an image or the user, fit for a terminal: control characters, which could move its cursor or set
 * its title, are spelled out (`\x1b`). Newlines stay.
 */
export const visible = (text: string): string =>
  text.replace(controls, (character) => {
    const code = character.charCodeAt(0)
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`
  })

/** As `visible`, on one line. */
export const visibleLine = (text: string): string => visible(text.replaceAll(/\s*\n\s*/g, " ")).trim()
