export { Btf, type BtfOptions } from "./Btf.ts"
export { type BtfHeader, headerOf, type KindCount, kindCounts } from "./BtfHeader.ts"
export { BtfLoader, BtfLoadError, type BtfLoaderService, type Loaded } from "./BtfLoader.ts"
export {
  type ArrayType,
  type BtfType,
  type DataSectionType,
  type DeclTagType,
  type Enumerator,
  type EnumType,
  type FloatType,
  type ForwardType,
  type FunctionType,
  type IntType,
  Kind,
  type KindName,
  type Member,
  type Parameter,
  type PrototypeType,
  type ReferenceType,
  type SectionVariable,
  type StructType,
  type TypeTagType,
  type UnknownType,
  type VariableType,
  type VoidType
} from "./BtfType.ts"
export {
  type ComparedType,
  diffAll,
  diffTypes,
  isCompared,
  type MemberChange,
  type Placed,
  type TypeChange,
  type ValueChange
} from "./c/BtfDiff.ts"
export { Budget, type Declaration, declarationOf, oneLine } from "./c/CDeclaration.ts"
export { type Hole, type MemberLayout, type StructLayout, structLayout, structTotals } from "./c/StructLayout.ts"
export { typeText } from "./c/TypeText.ts"
export type { Enumeration } from "./Enumeration.ts"
export { findTypes, TypeNotFound } from "./FindTypes.ts"
export {
  type Layout,
  layout,
  LayoutError,
  layoutOf,
  type OfMembers,
  type OptionalFields,
  type OtherNames
} from "./Layout.ts"
export { GroupMissing, type GroupParts, type OffsetGroup } from "./OffsetGroup.ts"
export { offsetGroups } from "./offsets/offsetGroups.ts"
export { ByteSink, type Literal } from "./render/ByteSink.ts"
export { bytesCodec, type Codec, type CodecOrigin, compile, type TreeOptions } from "./render/Codec.ts"
export type { HiddenBytes } from "./render/HiddenCheck.ts"
export {
  type ArrayValue,
  type EnumValue,
  type IntValue,
  type Json,
  type RenderedValue,
  type StructValue,
  toJson
} from "./render/RenderedValue.ts"
export { valueText, type ValueTextOptions } from "./render/ValueText.ts"
