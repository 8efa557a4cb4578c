//! Linear algebra: determinants.

use super::number::Real;
use super::{Words, DONE};

/// Words: how many matrices, how many rows each has.
unsafe fn determinant<T: Real>(mut words: Words, x: *const T, out: *mut T) -> i32 {
    let (count, n) = (words.size(), words.size());
    for m in 0..count {
        let mut matrix: Vec<f64> = (0..n * n).map(|i| (*x.add(m * n * n + i)).wide()).collect();
        *out.add(m) = T::narrow(eliminate(&mut matrix, n));
    }
    DONE
}

/// Gaussian elimination with row pivots; answers the determinant.
fn eliminate(matrix: &mut [f64], n: usize) -> f64 {
    let mut product = 1.0;
    for k in 0..n {
        let size = |row: usize| matrix[row * n + k].abs();
        let pivot = (k..n).fold(
            k,
            |best, row| if size(row) > size(best) { row } else { best },
        );
        if pivot != k {
            for column in 0..n {
                matrix.swap(k * n + column, pivot * n + column);
            }
            product = -product;
        }
        let head = matrix[k * n + k];
        product *= head;
        if head == 0.0 {
            return product;
        }
        for row in k + 1..n {
            let factor = matrix[row * n + k] / head;
            for column in k..n {
                matrix[row * n + column] -= factor * matrix[k * n + column];
            }
        }
    }
    product
}

export!("determinant", determinant(x: *const T, out: *mut T), f32 f64);

#[cfg(test)]
mod tests {
    use super::eliminate;

    #[test]
    fn determinants_of_small_matrices() {
        assert_eq!(eliminate(&mut [], 0), 1.0);
        assert_eq!(eliminate(&mut [0.0, 2.0, 3.0, 4.0], 2), -6.0);
        assert_eq!(eliminate(&mut [1.0, 2.0, 2.0, 4.0], 2), 0.0);
    }
}
