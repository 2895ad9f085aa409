import { scriptEnded } from "./Init.ts"

/** A message of the kernel, which goes to the console as a whole, also into the middle of another's line. */
const MESSAGE = /\[ *\d+\.\d{6}\][^\n]*(\n|$)/g

/** Lines of the console that neither the kernel nor our init printed. */
export const scriptLines = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.join("\n").replaceAll(MESSAGE, "").split("\n").filter((line) => line.trim() !== "" && !scriptEnded.test(line))
