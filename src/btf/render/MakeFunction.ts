/**
 * A function of these parameters and this body; null where this process forbids code from strings
 * (`--disallow-code-generation-from-strings`). The source must hold nothing of the guest's but numbers.
 */
export const makeFunction = (parameters: ReadonlyArray<string>, body: string): Function | null => {
  try {
    return new Function(...parameters, body)
  } catch (error) {
    if (error instanceof EvalError) return null
    throw error
  }
}
