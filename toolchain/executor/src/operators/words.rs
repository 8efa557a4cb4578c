//! The parameters of an operator: 32-bit words that the compiler wrote.

use std::slice::from_raw_parts;

/// Takes one word after the other; wasmgraph/importer/converters/library.py writes them.
pub struct Words {
    next: *const i32,
}

impl Words {
    /// # Safety
    /// `start` points to as many words as are taken.
    pub unsafe fn new(start: *const i32) -> Words {
        Words { next: start }
    }

    /// A whole number.
    pub fn int(&mut self) -> i32 {
        unsafe {
            let word = *self.next;
            self.next = self.next.add(1);
            word
        }
    }

    /// A number that is not negative.
    pub fn size(&mut self) -> usize {
        self.int() as usize
    }

    /// A truth value.
    pub fn flag(&mut self) -> bool {
        self.int() != 0
    }

    /// A float32, of which the word holds the bits.
    pub fn float(&mut self) -> f32 {
        f32::from_bits(self.int() as u32)
    }

    /// `count` words.
    pub fn ints(&mut self, count: usize) -> &'static [i32] {
        unsafe {
            let words = from_raw_parts(self.next, count);
            self.next = self.next.add(count);
            words
        }
    }

    /// As many words as the next one says.
    pub fn counted(&mut self) -> &'static [i32] {
        let count = self.size();
        self.ints(count)
    }
}

/// How many elements a tensor of this shape has.
pub fn elements(shape: &[i32]) -> usize {
    shape.iter().map(|&extent| extent as usize).product()
}

/// The place along every axis of element `index` in C order.
pub fn coordinates(index: usize, shape: &[i32], at: &mut [i32]) {
    let mut rest = index;
    for (place, &extent) in at.iter_mut().zip(shape).rev() {
        *place = (rest % extent as usize) as i32;
        rest /= extent as usize;
    }
}

/// The reverse: the element at a place along every axis.
pub fn flat(at: &[i32], shape: &[i32]) -> usize {
    at.iter().zip(shape).fold(0, |index, (&place, &extent)| {
        index * extent as usize + place as usize
    })
}

/// An index that counts from the end where it is negative; None where it is out of range.
pub fn resolved(index: i64, extent: i32) -> Option<usize> {
    let extent = i64::from(extent);
    let index = if index < 0 { index + extent } else { index };
    if (0..extent).contains(&index) {
        Some(index as usize)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_in_order() {
        let written = [3, -1, 0x3f80_0000, 2, 7, 8, 5, 6, 1];
        let mut words = unsafe { Words::new(written.as_ptr()) };
        assert_eq!(words.size(), 3);
        assert_eq!(words.int(), -1);
        assert_eq!(words.float(), 1.0);
        assert_eq!(words.counted(), [7, 8]);
        assert_eq!(words.ints(2), [5, 6]);
        assert!(words.flag());
    }

    #[test]
    fn a_scalar_has_one_element() {
        assert_eq!(elements(&[]), 1);
        assert_eq!(elements(&[2, 3]), 6);
        assert_eq!(elements(&[2, 0]), 0);
    }

    #[test]
    fn places_and_elements_are_the_reverse_of_each_other() {
        let shape = [2, 3, 4];
        let mut at = [0; 3];
        for index in 0..24 {
            coordinates(index, &shape, &mut at);
            assert_eq!(flat(&at, &shape), index);
        }
        assert_eq!(at, [1, 2, 3]);
    }

    #[test]
    fn indices_count_from_either_end() {
        assert_eq!((resolved(1, 3), resolved(-3, 3)), (Some(1), Some(0)));
        assert_eq!((resolved(3, 3), resolved(-4, 3)), (None, None));
    }
}
