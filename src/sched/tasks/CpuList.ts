/** The CPUs of a mask of `bits` bits as the kernel prints a list: `0-3,5`; lib/vsprintf.c `bitmap_list_string`, v6.12. */
export const cpuList = (view: DataView, at: number, bits: number): string => {
  const ranges: Array<string> = []
  let start = -1
  for (let cpu = 0; cpu <= bits; cpu++) {
    const set = cpu < bits && (view.getUint8(at + (cpu >>> 3)) >>> (cpu & 7) & 1) !== 0
    if (set && start < 0) start = cpu
    if (set || start < 0) continue
    ranges.push(cpu - 1 > start ? `${start}-${cpu - 1}` : String(start))
    start = -1
  }
  return ranges.join(",")
}

/** Is a CPU in such a list? */
export const inCpuList = (list: string, cpu: number): boolean =>
  list.split(",").some((range) => {
    const [first, last = first] = range.split("-").map(Number)
    return range !== "" && cpu >= first && cpu <= last
  })
