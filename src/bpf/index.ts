export { type ByteRun, encodeAt, EncodeError, encodeKey, encodeValue } from "../btf/render/ValueEncoder.ts"
export { EntryMismatch, type EntrySchemas, type TypedEntry } from "./EntriesAs.ts"
export type { EntryWalk } from "./EntryWalk.ts"
export * as GuestMapAccessor from "./guest/GuestMapAccessor.ts"
export { listLinks } from "./guest/links/Links.ts"
export { listPrograms } from "./guest/programs/ProgramWalk.ts"
export { type MapAssignment, MapWriteError, type MapWritten, writeMaps } from "./guest/write/MapWrite.ts"
export { type InnerMaps, openInnerMaps } from "./InnerMaps.ts"
export type { JsonEntry } from "./JsonReader.ts"
export { Attachment, Link } from "./Link.ts"
export {
  BpfUnreadable,
  entryCount,
  type Listing,
  MapAccessor,
  type MapAccessorService,
  MapNotFound,
  MapProblem,
  type MapSource,
  type TestMaps
} from "./MapAccessor.ts"
export { MapInfo } from "./MapInfo.ts"
export {
  decodeEntry,
  type MapEntry,
  type MapReader,
  type PerCpuEntry,
  problemOf,
  type SingleEntry
} from "./MapReader.ts"
export { Program, ProgramTarget } from "./Program.ts"
export {
  Consistency,
  Details,
  DumpDocument,
  DumpRecord,
  Entry,
  Freeze,
  Header,
  Kernel,
  MapDump,
  PlainJson,
  ProgramInfo,
  Source
} from "./Report.ts"
export { Change, DiffDocument, FieldChange } from "./report/DiffChange.ts"
export { parseDump } from "./report/DiffInput.ts"
export { type Dump, jsonDocument, ndjsonRecords } from "./report/DumpWriter.ts"
export type { EntryTexts } from "./report/EntryJson.ts"
export { watchMaps, WatchTick } from "./report/MapWatch.ts"
export {
  type DiffMap,
  type DiffSide,
  diffSnapshots,
  NotADump,
  secondsBetween,
  sideOfDocument,
  sideOfReaders
} from "./report/SnapshotDiff.ts"
export type { Shares } from "./report/WalkParts.ts"
export { type SecondThread, secondThread } from "./report/WalkThread.ts"
