//! What convolutions and pooling have in common: windows that slide over the axes after the second.

use crate::dynamic::call::{Call, Failure};
use crate::dynamic::value::Dims;

/// A window along every spatial axis.
pub struct Window {
    pub extents: Dims,
    pub kernel: Dims,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    /// Before the first element, along each axis.
    pub begin: Vec<usize>,
    pub end: Vec<usize>,
    pub out: Dims,
}

/// The words of a window: automatic padding (0 none, 1 valid, 2 same with more at the end, 3 same
/// with more at the beginning), whether sizes are rounded up, how many spatial axes, then strides,
/// dilations, pads before, pads after.
pub struct Words {
    auto: i32,
    ceil: bool,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    begin: Vec<usize>,
    end: Vec<usize>,
}

impl Words {
    pub fn take(call: &mut Call) -> Words {
        let (auto, ceil) = (call.words.int(), call.words.flag());
        let rank = call.words.size();
        let mut list = || -> Vec<usize> {
            let words = call.words.ints(rank);
            words.iter().map(|&word| word.max(0) as usize).collect()
        };
        Words {
            auto,
            ceil,
            strides: list(),
            dilations: list(),
            begin: list(),
            end: list(),
        }
    }
}

impl Window {
    /// Where the window goes over axes of these extents.
    pub fn new(words: Words, extents: &[usize], kernel: &[usize]) -> Result<Window, Failure> {
        let rank = extents.len();
        if words.strides.len() != rank || kernel.len() != rank {
            return Err("its input has another rank than its window".to_string());
        }
        let mut window = Window {
            extents: extents.to_vec(),
            kernel: kernel.to_vec(),
            strides: words.strides,
            dilations: words.dilations,
            begin: words.begin,
            end: words.end,
            out: Vec::new(),
        };
        for (k, &extent) in extents.iter().enumerate() {
            let reach = window.reach(k);
            let stride = window.strides[k].max(1);
            window.strides[k] = stride;
            if words.auto == 1 {
                window.begin[k] = 0;
                window.end[k] = 0;
            } else if words.auto > 1 {
                let wanted = (extent + stride - 1) / stride;
                let total = (wanted.saturating_sub(1) * stride + reach).saturating_sub(extent);
                let less = total / 2;
                window.begin[k] = if words.auto == 2 { less } else { total - less };
                window.end[k] = total - window.begin[k];
            }
            let room = extent + window.begin[k] + window.end[k];
            let free = room
                .checked_sub(reach)
                .ok_or("its input is smaller than its window")?;
            let mut count = free / stride + 1;
            if words.ceil {
                count = (free + stride - 1) / stride + 1;
                // No window begins in the padding after the end.
                if (count - 1) * stride >= extent + window.begin[k] {
                    count -= 1;
                }
            }
            window.out.push(count);
        }
        Ok(window)
    }

    /// How many elements the window spans along axis `k`.
    fn reach(&self, k: usize) -> usize {
        (self.kernel[k].max(1) - 1) * self.dilations[k] + 1
    }

    /// The input's place along axis `k`, of place `tap` of the window at place `at` of the output.
    pub fn place(&self, k: usize, at: usize, tap: usize) -> Option<usize> {
        let place = at * self.strides[k] + tap * self.dilations[k];
        let place = place.checked_sub(self.begin[k])?;
        (place < self.extents[k]).then_some(place)
    }
}

/// The indices along each axis of element `i` of a tensor of these extents.
pub fn unravel(mut i: usize, dims: &[usize], index: &mut [usize]) {
    for k in (0..dims.len()).rev() {
        index[k] = i % dims[k];
        i /= dims[k];
    }
}
