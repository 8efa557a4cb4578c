"""The instructions that kernels use.

Source: WebAssembly core specification 3.0, section "Index of Instructions". SIMD instructions are
0xFD followed by their number in LEB128.
"""

from __future__ import annotations

UNREACHABLE, BLOCK, LOOP, IF, ELSE, END = 0x00, 0x02, 0x03, 0x04, 0x05, 0x0B
BR, BR_IF, RETURN, CALL = 0x0C, 0x0D, 0x0F, 0x10
LOCAL_GET, LOCAL_SET, LOCAL_TEE = 0x20, 0x21, 0x22
GLOBAL_SET = 0x24
I32_LOAD, F32_LOAD, I32_STORE, F32_STORE = 0x28, 0x2A, 0x36, 0x38
I32_LOAD8_U, I32_LOAD16_U, I32_STORE8, I32_STORE16 = 0x2D, 0x2F, 0x3A, 0x3B
I32_CONST, I64_CONST, F32_CONST = 0x41, 0x42, 0x43
SELECT = 0x1B
MISC, SIMD, ATOMIC = 0xFC, 0xFD, 0xFE
MEMORY_ATOMIC_NOTIFY, MEMORY_ATOMIC_WAIT32 = 0, 1
MEMORY_COPY, MEMORY_FILL = 10, 11
VOID = 0x40

SCALAR = {
    "i32.eqz": 0x45,
    "i32.eq": 0x46,
    "i32.ne": 0x47,
    "i32.lt_s": 0x48,
    "i32.lt_u": 0x49,
    "i32.gt_s": 0x4A,
    "i32.gt_u": 0x4B,
    "i32.le_s": 0x4C,
    "i32.ge_s": 0x4E,
    "i32.ge_u": 0x4F,
    "i32.add": 0x6A,
    "i32.sub": 0x6B,
    "i32.mul": 0x6C,
    "i32.div_u": 0x6E,
    "i32.rem_u": 0x70,
    "i32.and": 0x71,
    "i32.or": 0x72,
    "i32.shl": 0x74,
    "i32.shr_u": 0x76,
    "f32.abs": 0x8B,
    "f32.neg": 0x8C,
    "f32.sqrt": 0x91,
    "f32.add": 0x92,
    "f32.sub": 0x93,
    "f32.mul": 0x94,
    "f32.div": 0x95,
    "f32.min": 0x96,
    "f32.max": 0x97,
}

VECTOR = {
    "v128.load": 0,
    "v128.load8x8_s": 1,
    "v128.load8x8_u": 2,
    "v128.load16x4_s": 3,
    "v128.load8_splat": 7,
    "v128.load16_splat": 8,
    "v128.load32_splat": 9,
    "v128.load64_splat": 10,
    "v128.store": 11,
    "v128.const": 12,
    "i8x16.shuffle": 13,
    "i32x4.splat": 17,
    "f32x4.splat": 19,
    "f32x4.extract_lane": 31,
    "f32x4.replace_lane": 32,
    "i32x4.eq": 55,
    "i32x4.gt_s": 59,
    "f32x4.eq": 65,
    "f32x4.ne": 66,
    "f32x4.lt": 67,
    "f32x4.gt": 68,
    "f32x4.le": 69,
    "f32x4.ge": 70,
    "v128.not": 77,
    "v128.and": 78,
    "v128.andnot": 79,
    "v128.or": 80,
    "v128.xor": 81,
    "v128.bitselect": 82,
    "v128.load32_lane": 86,
    "v128.store8_lane": 88,
    "v128.store16_lane": 89,
    "v128.store32_lane": 90,
    "v128.store64_lane": 91,
    "v128.load32_zero": 92,
    "v128.load64_zero": 93,
    "i8x16.narrow_i16x8_s": 101,
    "i8x16.narrow_i16x8_u": 102,
    "f32x4.ceil": 103,
    "f32x4.floor": 104,
    "f32x4.trunc": 105,
    "f32x4.nearest": 106,
    "i8x16.min_s": 118,
    "i8x16.min_u": 119,
    "i8x16.max_s": 120,
    "i8x16.max_u": 121,
    "i16x8.narrow_i32x4_s": 133,
    "i16x8.narrow_i32x4_u": 134,
    "i16x8.extend_low_i8x16_s": 135,
    "i16x8.extend_low_i8x16_u": 137,
    "i16x8.sub": 145,
    "i32x4.extend_low_i16x8_s": 167,
    "i32x4.extend_high_i16x8_s": 168,
    "i32x4.extend_low_i16x8_u": 169,
    "i32x4.shl": 171,
    "i32x4.shr_s": 172,
    "i32x4.shr_u": 173,
    "i32x4.add": 174,
    "i32x4.sub": 177,
    "i32x4.mul": 181,
    "i32x4.dot_i16x8_s": 186,
    "f32x4.abs": 224,
    "f32x4.neg": 225,
    "f32x4.sqrt": 227,
    "f32x4.add": 228,
    "f32x4.sub": 229,
    "f32x4.mul": 230,
    "f32x4.div": 231,
    "f32x4.min": 232,
    "f32x4.max": 233,
    "f32x4.pmin": 234,
    "f32x4.pmax": 235,
    "i32x4.trunc_sat_f32x4_s": 248,
    "f32x4.convert_i32x4_s": 250,
    "f32x4.relaxed_madd": 261,
    "f32x4.relaxed_nmadd": 262,
}
