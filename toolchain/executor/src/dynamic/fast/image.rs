//! Images as the window of a convolution sees them: padded, and where the window moves by several
//! elements, with the elements of every phase beside each other. So each place of the window (a tap)
//! reads its elements evenly, from a place of its own.

use crate::dynamic::call::{room, Failure};
use crate::dynamic::ops::window::Window;
use crate::dynamic::value::Tensor;
use std::arch::wasm32::{i32x4_shuffle, v128};

/// Floats behind the last image that may be read.
const SLACK: usize = 16;

/// A window over images of two axes; those of one axis have one row.
pub struct View {
    extents: [usize; 2],
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    begin: [usize; 2],
    pub out: [usize; 2],
    /// Whether images can be read as they are.
    pub is_plain: bool,
    /// Floats between rows.
    pub pitch: usize,
    /// Floats between images.
    pub plane: usize,
    /// Floats from where an output row begins to where each tap reads.
    pub taps: Vec<usize>,
    /// Rows of the output, from one on, that the same rows of the window see something of the image
    /// from: the first row, how many, and the window's rows, the first and the one beyond the last.
    pub bands: Vec<[usize; 4]>,
    /// The phases that taps read, along rows and columns, and their rows.
    phases: Vec<[usize; 2]>,
    rows: usize,
    /// What stands beyond the image.
    padding: f32,
}

impl View {
    /// Room is for output rows of at least `least` columns, which may be more than there are.
    pub fn new(window: &Window, least: usize, padding: f32) -> View {
        let two = |values: &[usize], one: usize| match values {
            [only] => [one, *only],
            [first, second, ..] => [*first, *second],
            [] => [one, one],
        };
        let mut view = View {
            extents: two(&window.extents, 1),
            kernel: two(&window.kernel, 1),
            strides: two(&window.strides, 1),
            dilations: two(&window.dilations, 1),
            begin: two(&window.begin, 0),
            out: two(&window.out, 1),
            is_plain: false,
            pitch: 0,
            plane: 0,
            taps: Vec::new(),
            bands: Vec::new(),
            phases: Vec::new(),
            rows: 0,
            padding,
        };
        view.lay_out(&two(&window.end, 0), least);
        view
    }

    fn lay_out(&mut self, end: &[usize; 2], least: usize) {
        let [_, width] = self.extents;
        let beyond = |k: usize| (self.kernel[k].max(1) - 1) * self.dilations[k] / self.strides[k];
        self.is_plain = self.strides == [1, 1]
            && self.begin == [0, 0]
            && *end == [0, 0]
            && self.out[1] >= least;
        let (rows, pitch) = match self.is_plain {
            true => (self.extents[0], width),
            false => (self.out[0] + beyond(0), self.out[1].max(least) + beyond(1)),
        };
        let mut taps = Vec::new();
        for y in 0..self.kernel[0] {
            for x in 0..self.kernel[1] {
                let (y, x) = (y * self.dilations[0], x * self.dilations[1]);
                let phase = [y % self.strides[0], x % self.strides[1]];
                let number = match self.phases.iter().position(|&known| known == phase) {
                    Some(number) => number,
                    None => {
                        self.phases.push(phase);
                        self.phases.len() - 1
                    }
                };
                let row = number * rows + y / self.strides[0];
                taps.push(row * pitch + x / self.strides[1]);
            }
        }
        self.taps = taps;
        self.bands = self.bands_of();
        (self.rows, self.pitch) = (rows, pitch);
        self.plane = self.phases.len() * rows * pitch;
        if self.is_plain && self.taps.len() == 1 && pitch == self.out[1] {
            // All rows are one.
            self.out = [1, self.out[0] * self.out[1]];
            self.pitch = self.out[1];
            self.bands = vec![[0, 1, 0, 1]];
        }
    }

    /// Where each tap reads in an image as it is, in floats from where an output row would begin in it;
    /// None unless the window is three columns wide, of which one is beyond the image at each end of a
    /// row, and there the place is of another row or just outside of the image.
    pub fn direct_taps(&self) -> Option<Vec<isize>> {
        let width = self.extents[1];
        let fits = self.kernel[1] == 3
            && self.strides == [1, 1]
            && self.dilations[1] == 1
            && self.begin[1] == 1
            && self.out[1] == width
            && width >= 4
            && self.sees_always();
        let place = |y: usize, x: isize| {
            let row = (y * self.dilations[0]) as isize - self.begin[0] as isize;
            row * width as isize + x - 1
        };
        fits.then(|| {
            (0..self.kernel[0])
                .flat_map(|y| (0..3).map(move |x| (y, x)))
                .map(|(y, x)| place(y, x))
                .collect()
        })
    }

    /// Whether in every band the rows of the window are rows of the image, so that none of the padding
    /// before and after it is read.
    pub fn sees_always(&self) -> bool {
        let (stride, dilation) = (self.strides[0], self.dilations[0]);
        self.bands.iter().all(|&[row, count, low, high]| {
            let first = row * stride + low * dilation;
            let last = (row + count - 1) * stride + (high - 1) * dilation;
            first >= self.begin[0] && last < self.begin[0] + self.extents[0]
        })
    }

    pub fn rows_of_window(&self) -> usize {
        self.kernel[0]
    }

    fn bands_of(&self) -> Vec<[usize; 4]> {
        let (stride, dilation, begin) = (self.strides[0], self.dilations[0], self.begin[0]);
        let mut bands: Vec<[usize; 4]> = Vec::new();
        for row in 0..self.out[0] {
            // Places of the window's rows, up to the first inside, and up to the first beyond.
            let until = |limit: usize| {
                let left = limit.saturating_sub(row * stride);
                ((left + dilation - 1) / dilation).min(self.kernel[0])
            };
            let (low, high) = (until(begin), until(begin + self.extents[0]));
            // One that sees nothing at all sums zeros.
            let (low, high) = if low < high { (low, high) } else { (0, 1) };
            match bands.last_mut() {
                Some(band) if band[2..] == [low, high] => band[1] += 1,
                _ => bands.push([row, 1, low, high]),
            }
        }
        bands
    }

    /// Room for `count` images.
    pub fn room(&self, count: usize) -> Result<Tensor, Failure> {
        room(vec![count * self.plane + SLACK], 4)
    }

    /// Lays one image out, at `to`; `with_rows` says whether rows of padding are wanted too.
    ///
    /// # Safety
    /// `from` is an image of the view's extents, `to` has room for `plane`.
    pub unsafe fn copy(&self, from: *const f32, to: *mut f32, with_rows: bool) {
        let mut to = to;
        for phase in &self.phases {
            for row in 0..self.rows {
                let y = row * self.strides[0] + phase[0];
                match y
                    .checked_sub(self.begin[0])
                    .filter(|&y| y < self.extents[0])
                {
                    Some(y) => self.copy_row(from.add(y * self.extents[1]), to, phase[1]),
                    None if with_rows => self.pad(to, self.pitch),
                    None => (),
                }
                to = to.add(self.pitch);
            }
        }
    }

    unsafe fn copy_row(&self, from: *const f32, to: *mut f32, phase: usize) {
        let (stride, begin, width) = (self.strides[1], self.begin[1], self.extents[1]);
        // Places up to the first inside, and up to the first beyond.
        let until = |limit: usize| (limit.saturating_sub(phase) + stride - 1) / stride;
        let low = until(begin).min(self.pitch);
        let high = until(begin + width).clamp(low, self.pitch);
        self.pad(to, low);
        if low < high {
            let from = from.add(low * stride + phase - begin);
            let (to, count) = (to.add(low), high - low);
            match stride {
                1 => copy_vectors(from, to, count),
                2 => copy_every_second(from, to, count),
                _ => (0..count).for_each(|i| *to.add(i) = *from.add(i * stride)),
            }
        }
        self.pad(to.add(high), self.pitch - high);
    }

    unsafe fn pad(&self, to: *mut f32, count: usize) {
        for i in 0..count {
            *to.add(i) = self.padding;
        }
    }
}

/// Four vectors at a time, up to 15 elements more than are asked for: a row is written before what
/// follows it, and `SLACK` follows the last one. The engine's own copy is a call out of wasm.
unsafe fn copy_vectors(from: *const f32, to: *mut f32, count: usize) {
    let mut done = 0;
    while done < count {
        let four = from.add(done).cast::<[v128; 4]>().read_unaligned();
        to.add(done).cast::<[v128; 4]>().write_unaligned(four);
        done += 16;
    }
}

unsafe fn copy_every_second(from: *const f32, to: *mut f32, count: usize) {
    let whole = count.saturating_sub(1) & !3;
    for i in (0..whole).step_by(4) {
        let source = from.add(2 * i).cast::<v128>();
        let (a, b) = (source.read_unaligned(), source.add(1).read_unaligned());
        let evens = i32x4_shuffle::<0, 2, 4, 6>(a, b);
        to.add(i).cast::<v128>().write_unaligned(evens);
    }
    (whole..count).for_each(|i| *to.add(i) = *from.add(2 * i));
}
