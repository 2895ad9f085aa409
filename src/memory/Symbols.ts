/**
 * A symbol of the kernel image. `address` is a run-time address, or a section offset for per-CPU ones before v6.15.
 *
 * @since 0.1.0
 * @category models
 */
export interface KernelSymbol {
  readonly name: string
  readonly address: bigint
}

/**
 * The kernel image's own symbols; those of modules are not among them.
 *
 * @since 0.1.0
 * @category models
 */
export interface Symbols {
  /** The first symbol of that name, in address order. */
  address(name: string): bigint | undefined
  /** The nearest symbol at or below a run-time address inside the image, and the distance in bytes. */
  at(address: bigint): { readonly name: string; readonly offset: number } | undefined
  /** All symbols, in the order of the table. */
  entries(): Iterable<KernelSymbol>
}
