//! Discrete Fourier transforms, in double precision.

use super::number::Real;
use super::{Words, DONE};
use std::f64::consts::PI;

type Complex = (f64, f64);

fn add(a: Complex, b: Complex) -> Complex {
    (a.0 + b.0, a.1 + b.1)
}

fn multiply(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

/// The powers of the root of unity that a transform of this length multiplies with.
fn roots(length: usize, inverse: bool) -> Vec<Complex> {
    let sign = if inverse { 2.0 } else { -2.0 };
    let angle = |k: usize| sign * PI * k as f64 / length as f64;
    (0..length)
        .map(|k| (angle(k).cos(), angle(k).sin()))
        .collect()
}

/// The transform of every `step`-th element of `x`; `out.len() * step` is `roots.len()`.
/// Halves even lengths (Cooley and Tukey, 1965); what is odd takes its square of operations.
fn transform(x: &[Complex], step: usize, out: &mut [Complex], roots: &[Complex]) {
    let length = out.len();
    if length % 2 == 1 {
        for (k, value) in out.iter_mut().enumerate() {
            *value = (0..length).fold((0.0, 0.0), |sum, j| {
                add(sum, multiply(x[j * step], roots[j * k % length * step]))
            });
        }
        return;
    }
    let (low, high) = out.split_at_mut(length / 2);
    transform(x, 2 * step, low, roots);
    transform(&x[step..], 2 * step, high, roots);
    for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
        let (even, odd) = (*a, multiply(roots[k * step], *b));
        *a = add(even, odd);
        *b = (even.0 - odd.0, even.1 - odd.1);
    }
}

/// Words: elements before the axis, along it, after it, whether each is complex; length of the
/// transform, elements of the output along the axis, whether it is inverse, whether the input is half
/// of a symmetric spectrum, so that the output is real.
/// The input is cut or filled with zeros to the length.
unsafe fn fourier<T: Real>(mut words: Words, x: *const T, out: *mut T) -> i32 {
    let (outer, extent, inner) = (words.size(), words.size(), words.size());
    let (complex, length, wanted) = (words.flag(), words.size(), words.size());
    let (inverse, half) = (words.flag(), words.flag());
    let roots = roots(length, inverse);
    let factor = if inverse { 1.0 / length as f64 } else { 1.0 };
    let mut line = vec![(0.0, 0.0); length];
    let mut spectrum = line.clone();
    for o in 0..outer {
        for i in 0..inner {
            let given = if half { length / 2 + 1 } else { length }.min(extent);
            for (k, value) in line.iter_mut().enumerate() {
                *value = (0.0, 0.0);
                if k < given {
                    *value = element(x, (o * extent + k) * inner + i, complex);
                }
            }
            if half {
                line[0].1 = 0.0;
                for k in 1..=length / 2 {
                    let (re, im) = line[k];
                    if 2 * k == length {
                        line[k] = (re, 0.0);
                    } else {
                        line[length - k] = (re, -im);
                    }
                }
            }
            transform(&line, 1, &mut spectrum, &roots);
            for (k, value) in spectrum[..wanted].iter().enumerate() {
                let at = (o * wanted + k) * inner + i;
                let scaled = (T::narrow(value.0 * factor), T::narrow(value.1 * factor));
                if half {
                    *out.add(at) = scaled.0;
                } else {
                    *out.add(2 * at) = scaled.0;
                    *out.add(2 * at + 1) = scaled.1;
                }
            }
        }
    }
    DONE
}

/// Words: signals, elements of each, whether each is complex, step between frames, elements of a
/// frame, frames, elements of a frame's spectrum that are wanted.
unsafe fn short_time_fourier<T: Real>(
    mut words: Words,
    signal: *const T,
    window: *const T,
    out: *mut T,
) -> i32 {
    let (signals, extent, complex) = (words.size(), words.size(), words.flag());
    let (step, length, frames, wanted) = (words.size(), words.size(), words.size(), words.size());
    let roots = roots(length, false);
    let mut line = vec![(0.0, 0.0); length];
    let mut spectrum = line.clone();
    let mut target = out;
    for n in 0..signals {
        for frame in 0..frames {
            for (k, value) in line.iter_mut().enumerate() {
                let (re, im) = element(signal, n * extent + frame * step + k, complex);
                let weight = (*window.add(k)).wide();
                *value = (re * weight, im * weight);
            }
            transform(&line, 1, &mut spectrum, &roots);
            for value in &spectrum[..wanted] {
                *target = T::narrow(value.0);
                *target.add(1) = T::narrow(value.1);
                target = target.add(2);
            }
        }
    }
    DONE
}

unsafe fn element<T: Real>(x: *const T, at: usize, complex: bool) -> Complex {
    if complex {
        ((*x.add(2 * at)).wide(), (*x.add(2 * at + 1)).wide())
    } else {
        ((*x.add(at)).wide(), 0.0)
    }
}

export!("fourier", fourier(x: *const T, out: *mut T), f32 f64);
export!(
    "short_time_fourier",
    short_time_fourier(signal: *const T, window: *const T, out: *mut T),
    f32 f64
);

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, element by element.
    fn by_definition(x: &[Complex], k: usize) -> Complex {
        let angle = |j: usize| -2.0 * PI * (j * k) as f64 / x.len() as f64;
        (0..x.len()).fold((0.0, 0.0), |sum, j| {
            add(sum, multiply(x[j], (angle(j).cos(), angle(j).sin())))
        })
    }

    #[test]
    fn every_length_gives_what_the_definition_gives() {
        for length in [1, 2, 3, 4, 6, 7, 12, 16, 40] {
            let x: Vec<Complex> = (0..length)
                .map(|i| (i as f64, 1.0 / (i + 1) as f64))
                .collect();
            let mut out = vec![(0.0, 0.0); length];
            transform(&x, 1, &mut out, &roots(length, false));
            for (k, found) in out.iter().enumerate() {
                let wanted = by_definition(&x, k);
                let distance = (found.0 - wanted.0).hypot(found.1 - wanted.1);
                assert!(distance < 1e-11, "{length} {k} {distance}");
            }
        }
    }
}
