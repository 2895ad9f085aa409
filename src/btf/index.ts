export { Btf, type BtfOptions } from "./Btf.ts"
export { BtfLoader, BtfLoadError } from "./BtfLoader.ts"
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
  type VariableType,
  type VoidType
} from "./BtfType.ts"
export { ByteSink } from "./ByteSink.ts"
export { bytesCodec, type Codec, compile, type TreeOptions } from "./Codec.ts"
export { type Layout, layout, LayoutError, layoutOf } from "./Layout.ts"
export {
  type ArrayValue,
  type EnumValue,
  type IntValue,
  type Json,
  type RenderedValue,
  type StructValue,
  toJson
} from "./RenderedValue.ts"
export { textOf, type TextOptions } from "./Text.ts"
