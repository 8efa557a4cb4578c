// Types of the package `wasmgraph`: run the WebAssembly files that wasmgraph makes of ONNX models.

/** The ONNX names of element types. */
export type DType =
  | "bool"
  | "int8"
  | "int16"
  | "int32"
  | "int64"
  | "uint8"
  | "uint16"
  | "uint32"
  | "uint64"
  | "float16"
  | "bfloat16"
  | "float32"
  | "float64"
  | "float8_e4m3fn"
  | "float8_e4m3fnuz"
  | "float8_e5m2"
  | "float8_e5m2fnuz"
  | "float8_e8m0fnu"
  | "float4_e2m1fn"
  | "int4"
  | "uint4"
  | "int2"
  | "uint2";

/**
 * What holds a tensor's elements: `Uint8Array` for bool and everything narrower than 8 bits (the low bits of
 * one byte each) and for float8, `Uint16Array` for float16 and bfloat16 (their bits), `BigInt64Array` and
 * `BigUint64Array` for 64-bit integers, and the array of its name for everything else.
 */
export type TensorData =
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Float32Array
  | Float64Array;

/** Elements in C order, their shape and dtype. */
export interface Tensor {
  data: TensorData;
  shape: number[];
  dtype: DType;
}

/** Numbers (bigint and number for 64-bit integers, boolean for bool), nested or not. */
export type Numbers = readonly (number | bigint | boolean | Numbers)[];

/**
 * What may be given for an input: a tensor, or its elements alone where the graph says the shape, or all of it
 * but one extent. A typed array must be the dtype's own; numbers are converted where that keeps them (floats
 * are rounded to the nearest).
 */
export type Input =
  | Tensor
  | { data: TensorData | Numbers; shape?: readonly number[] }
  | TensorData
  | Numbers
  | number
  | bigint
  | boolean;

/** What a graph takes or gives. An extent that a run decides is a name; an output of any rank is `["..."]`. */
export interface TensorSpec {
  name: string;
  dtype: DType;
  shape: (number | string)[];
}

/** The graph's own description, from its custom section `wasmgraph`. */
export interface Metadata {
  abi: 1;
  producer: Record<string, string>;
  model: { name: string; sha256: string; opset: number; operators: Record<string, number> };
  simd: "none" | "simd128" | "relaxed";
  threads: boolean;
  dynamic?: boolean;
  inputs: TensorSpec[];
  outputs: TensorSpec[];
  /** Bytes. */
  sizes: { code: number; weights: number; arena: number; io: number };
  kernels: { symbol: string; description: string }[];
  steps: { kernel: number; nodes: string[]; flops?: number; shares?: number }[];
}

export interface LoadOptions {
  /**
   * How many threads work on each run of a graph that was compiled for several; 1 if nothing is said. On a page
   * that is not cross-origin isolated it is one, and the console says so.
   */
  threads?: number;
  /**
   * Whether what is fetched is kept in the browser's Cache API, by its SHA-256, and found there the next time
   * without asking the server (true if nothing is said). "reload" fetches it again. A SHA-256 in hexadecimal
   * digits says what the contents must be: they are taken from the cache wherever they came from, and anything
   * else is a LoadError. Does nothing for files and bytes, nor where there is no Cache API.
   */
  cache?: boolean | "reload" | string;
  /** Bytes of memory that the graph may have. */
  maxMemory?: number;
  /**
   * Milliseconds that starting it and every run may take. Only a worker can be stopped, so the graph lives in
   * one.
   */
  timeout?: number;
  /**
   * Whether the graph lives in a worker, so that runs do not hold this thread up. If nothing is said, it does
   * where it has a time limit. With several threads on a page it always does.
   */
  worker?: boolean;
  /** Gives up reading and compiling. */
  signal?: AbortSignal;
}

export interface RunOptions {
  /** Milliseconds that this run may take, instead of those of `load`. */
  timeout?: number;
}

export interface Graph {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  readonly metadata: Metadata;
  /** Bytes of memory that the graph has now, where it lives in this thread and has run. */
  readonly memoryBytes: number | undefined;
  /**
   * Run once. Runs follow each other in the order of the calls.
   *
   * Rejects with an InputError, InferenceError, MemoryLimitExceeded or RunTimeout; the graph can go on after it.
   */
  run(inputs: Record<string, Input>, options?: RunOptions): Promise<Record<string, Tensor>>;
  /** End its threads and let go of its memory, once the runs that were asked for have ended. */
  close(): void;
}

/**
 * Load a graph from an address, a file (outside browsers), bytes, or a Response.
 *
 * Rejects with a LoadError, MemoryLimitExceeded or RunTimeout, or with the signal's reason.
 */
export function load(source: string | URL | Uint8Array | ArrayBuffer | Response, options?: LoadOptions): Promise<Graph>;

/** A tensor; without a shape it has one axis, without a dtype that of the array's class (numbers: float32). */
export function tensor(data: TensorData | Numbers, shape?: readonly number[], dtype?: DType): Tensor;

export interface ImageOptions {
  /** Pixels: height and width, or one number for both; the image's own if nothing is said. */
  size?: number | readonly [height: number, width: number];
  /** 3: red, green and blue (if nothing is said). 1: their luma (ITU-R 601). */
  channels?: 1 | 3;
  /** What pixels of 0 to 255 are multiplied by, 1/255 if nothing is said; */
  scale?: number;
  /** then `mean` (0) is subtracted, */
  mean?: number | readonly number[];
  /** and the result divided by `std` (1). One of each, or one per channel. */
  std?: number | readonly number[];
  /** "NCHW" if nothing is said. */
  layout?: "NCHW" | "NHWC";
  /** "float32" if nothing is said; integers are rounded. */
  dtype?: "float32" | "float64" | "int8" | "int16" | "int32" | "uint8" | "uint16" | "uint32";
}

/**
 * A tensor of one image: resized bilinearly (over all pixels that fall into one where it shrinks, as Pillow
 * does), normalised, laid out. Transparency is left aside. `image` is an ImageData or what has its fields.
 */
export function fromImageData(
  image: { readonly data: ArrayLike<number>; readonly width: number; readonly height: number },
  options?: ImageOptions,
): Tensor;

/** Base class of every error on purpose. */
export class WasmgraphError extends Error {
  readonly kind: "LoadError" | "InputError" | "InferenceError" | "MemoryLimitExceeded" | "RunTimeout";
  /** The way out, where there is one. */
  readonly hint: string | null;
}

/** Not a graph: unreadable, damaged, foreign imports, another ABI. */
export class LoadError extends WasmgraphError {}
/** An input is missing, extra or misnamed, or of the wrong dtype or shape. */
export class InputError extends WasmgraphError {}
/** The graph trapped or reported an error. */
export class InferenceError extends WasmgraphError {}
/** The graph needs more memory than it may have. */
export class MemoryLimitExceeded extends WasmgraphError {}
/** The run took longer than it may. */
export class RunTimeout extends WasmgraphError {}
