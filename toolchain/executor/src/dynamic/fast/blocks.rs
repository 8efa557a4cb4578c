//! Matrix products with weights that are stored as codes of a few bits.
//!
//! Of every panel of columns there is a run of records, one for each block of k that shares scales:
//! scales, zero points if they differ, codes in 32-bit words, one per column. A weight is
//! (code - zero point) * scale. wasmgraph/kernels/block_stored.py writes them.

use super::kernels::{
    wgk_decode_2_16, wgk_decode_2_4, wgk_decode_2_8, wgk_decode_4_16, wgk_decode_4_4,
    wgk_decode_4_8, wgk_decode_8_16, wgk_decode_8_4, wgk_decode_8_8, Decoding,
};
use super::panels::{multiply_panels, panel, Rows, Start};
use super::product::product;
use crate::dynamic::call::{room, Answer, Call};
use crate::operators::Words;

const WORD_BITS: usize = 32;

/// About how many k of a panel are decoded before they are multiplied with: they stay in the
/// first-level cache.
const AT_ONCE: usize = 128;

/// How many k behind the last one of a record a word may have.
const SLACK: usize = 15;

/// How weights are stored.
#[derive(Clone, Copy)]
struct Form {
    bits: usize,
    block: usize,
    /// Bytes of a column's zero point in a record: 0, 1, or 4 for a float.
    zero_nbytes: usize,
    /// The zero point of all, where records have none.
    zero: f32,
}

impl Form {
    fn read(words: &mut Words) -> Form {
        Form {
            bits: words.size(),
            block: words.size(),
            zero_nbytes: words.size(),
            zero: words.float(),
        }
    }

    fn words(&self, depth: usize) -> usize {
        let codes = WORD_BITS / self.bits;
        (depth + codes - 1) / codes
    }

    fn record_nbytes(&self, depth: usize, width: usize) -> usize {
        width * (4 + self.zero_nbytes + 4 * self.words(depth))
    }

    /// Bytes of all records of a column.
    fn column_nbytes(&self, depth: usize) -> usize {
        let rest = match depth % self.block {
            0 => 0,
            rest => self.record_nbytes(rest, 1),
        };
        depth / self.block * self.record_nbytes(self.block, 1) + rest
    }

    /// Decodes some records of a panel, to\[k, column\], and gives what comes behind them.
    ///
    /// # Safety
    /// There are records of `depth` k at `from`, and room for them and `SLACK` k more at `to`.
    unsafe fn decode(
        &self,
        from: *const u8,
        depth: usize,
        width: usize,
        to: *mut f32,
    ) -> *const u8 {
        let kernel = self.kernel(width);
        let mut zeros = [self.zero; 16];
        let mut record = from;
        for first in (0..depth).step_by(self.block) {
            let length = self.block.min(depth - first);
            let given = record.add(4 * width);
            for (i, zero) in zeros.iter_mut().enumerate().take(width) {
                match self.zero_nbytes {
                    0 => (),
                    1 => *zero = f32::from(*given.add(i)),
                    _ => *zero = given.cast::<f32>().add(i).read_unaligned(),
                }
            }
            let codes = given.add(width * self.zero_nbytes);
            // What the last word has too much is overwritten by the next record.
            let place = to.add(first * width);
            kernel(
                record.cast(),
                zeros.as_ptr(),
                codes,
                place,
                self.words(length),
            );
            record = record.add(self.record_nbytes(length, width));
        }
        record
    }

    fn kernel(&self, width: usize) -> Decoding {
        match (self.bits, width) {
            (2, 16) => wgk_decode_2_16,
            (2, 8) => wgk_decode_2_8,
            (2, _) => wgk_decode_2_4,
            (4, 16) => wgk_decode_4_16,
            (4, 8) => wgk_decode_4_8,
            (4, _) => wgk_decode_4_4,
            (_, 16) => wgk_decode_8_16,
            (_, 8) => wgk_decode_8_8,
            _ => wgk_decode_8_4,
        }
    }
}

/// Words: how many axes the result has at least, depth and columns, bits of a code, how many k share
/// a scale, bytes of a zero point in a record, the zero point where that is 0. Inputs: data, whose
/// last axis is multiplied, the records, a bias per column (may be left out), then the chain's
/// operands after the first.
fn blocks(call: &mut Call) -> Answer {
    let least = call.words.size();
    let (depth, columns) = (call.words.size(), call.words.size());
    let form = Form::read(&mut call.words);
    let records = call.tensor(1)?;
    let step = (AT_ONCE / form.block).max(1) * form.block;
    let buffer = room(vec![(step.min(depth) + SLACK) * 16], 4)?;
    product(call, least, depth, columns, |rows: Rows, start: Start| {
        let decoded: *mut f32 = buffer.start().cast();
        unsafe {
            multiply_panels(rows, columns, start, |column, width, rows, start| {
                let mut from: *const u8 = records.start().add(column * form.column_nbytes(depth));
                let mut start = start;
                for k in (0..depth).step_by(step) {
                    let length = step.min(depth - k);
                    from = form.decode(from, length, width, decoded);
                    let a = rows.a.add(k);
                    panel(
                        width,
                        Rows {
                            a,
                            depth: length,
                            ..rows
                        },
                        decoded,
                        start,
                    );
                    start = Start::rows(rows.out, rows.out_row);
                }
            })
        }
    })
}

export!("fast_blocks", blocks);
