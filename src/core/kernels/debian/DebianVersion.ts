/**
 * Order two Debian package versions, as `dpkg --compare-versions` does: negative where `a` is earlier, positive where it
 * is later, 0 where they are equal.
 * @see Debian Policy Manual 5.6.12, "Version"
 * @since 0.1.0
 * @category comparing
 */
export const compareDebianVersions = (a: string, b: string): number => {
  const [left, right] = [split(a), split(b)]
  return left.epoch - right.epoch || compareParts(left.upstream, right.upstream) ||
    compareParts(left.revision, right.revision)
}

const split = (version: string): { epoch: number; upstream: string; revision: string } => {
  const colon = version.indexOf(":")
  const rest = version.slice(colon + 1)
  const dash = rest.lastIndexOf("-")
  return {
    epoch: colon < 0 ? 0 : Number(version.slice(0, colon)),
    upstream: dash < 0 ? rest : rest.slice(0, dash),
    revision: dash < 0 ? "" : rest.slice(dash + 1)
  }
}

/** Alternate runs of non-digits, compared by `rank`, and of digits, compared as numbers (absent is 0). */
const compareParts = (a: string, b: string): number => {
  const runs = /(\D*)(\d*)/y
  for (let left = 0, right = 0; left < a.length || right < b.length;) {
    runs.lastIndex = left
    const [, leftText, leftDigits] = runs.exec(a) ?? ["", "", ""]
    left = runs.lastIndex
    runs.lastIndex = right
    const [, rightText, rightDigits] = runs.exec(b) ?? ["", "", ""]
    right = runs.lastIndex
    const order = compareText(leftText, rightText) || compareDigits(leftDigits, rightDigits)
    if (order !== 0) return order
  }
  return 0
}

const compareText = (a: string, b: string): number => {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const order = rank(a, i) - rank(b, i)
    if (order !== 0) return order
  }
  return 0
}

/** `~` sorts before the end of the part, letters after it, and all else after letters. */
const rank = (text: string, at: number): number => {
  if (at >= text.length) return 0
  const character = text[at]
  if (character === "~") return -1
  return /[a-zA-Z]/.test(character) ? character.charCodeAt(0) : character.charCodeAt(0) + 256
}

const compareDigits = (a: string, b: string): number => {
  const [left, right] = [a.replace(/^0+/, ""), b.replace(/^0+/, "")]
  return left.length - right.length || (left < right ? -1 : left > right ? 1 : 0)
}
