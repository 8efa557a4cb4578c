//! Support vector machines of ai.onnx.ml.

#![allow(clippy::too_many_arguments)] // one per tensor

use super::number::Real;
use super::scores::{logistic, two_sided, Transform};
use super::{Words, DONE};
use std::slice::from_raw_parts;

/// What a row and a support vector are compared by.
struct Kernel {
    kind: usize,
    gamma: f64,
    constant: f64,
    degree: f64,
}

impl Kernel {
    /// Words: kind, gamma, constant, degree.
    fn new(words: &mut Words) -> Kernel {
        Kernel {
            kind: words.size(),
            gamma: words.float().wide(),
            constant: words.float().wide(),
            degree: words.float().wide(),
        }
    }

    fn compare<T: Real>(&self, row: &[T], vector: &[T]) -> f64 {
        let pairs = row.iter().zip(vector).map(|(a, b)| (a.wide(), b.wide()));
        if self.kind == 2 {
            return (-self.gamma * pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>()).exp();
        }
        let product: f64 = pairs.map(|(a, b)| a * b).sum();
        match self.kind {
            1 => (self.gamma * product + self.constant).powf(self.degree),
            3 => (self.gamma * product + self.constant).tanh(),
            _ => product,
        }
    }
}

/// Words: kernel (kind, gamma, constant, degree); rows, features, vectors, whether only the sign is
/// wanted. `rho` is added to the sum of the weighted comparisons.
unsafe fn svm_regressor<T: Real>(
    mut words: Words,
    x: *const T,
    vectors: *const T,
    weights: *const T,
    rho: *const T,
    out: *mut T,
) -> i32 {
    let kernel = Kernel::new(&mut words);
    let (rows, features, count) = (words.size(), words.size(), words.size());
    let one_class = words.flag();
    for n in 0..rows {
        let row = from_raw_parts(x.add(n * features), features);
        let mut sum = (*rho).wide();
        for v in 0..count {
            let vector = from_raw_parts(vectors.add(v * features), features);
            sum += (*weights.add(v)).wide() * kernel.compare(row, vector);
        }
        if one_class {
            sum = if sum > 0.0 { 1.0 } else { -1.0 };
        }
        *out.add(n) = T::narrow(sum);
    }
    DONE
}

/// Words: kernel (kind, gamma, constant, degree); rows, features, transformation, whether there are
/// probabilities, vectors per class (counted).
/// `weights` has a row less than there are classes, each with a number per vector; `rho`, and `a` and
/// `b`, which make probabilities of scores, have an element per pair of classes.
/// Answers the number of the winning class per row, and scores: of classes where there are
/// probabilities or two classes, else of the pairs.
unsafe fn svm_classifier<T: Real>(
    mut words: Words,
    x: *const T,
    vectors: *const T,
    weights: *const T,
    rho: *const T,
    a: *const T,
    b: *const T,
    labels: *mut i64,
    out: *mut f32,
) -> i32 {
    let kernel = Kernel::new(&mut words);
    let (rows, features) = (words.size(), words.size());
    let transform = Transform::numbered(words.size());
    let (with_probabilities, counts) = (words.flag(), words.counted());
    let classes = counts.len();
    let starts: Vec<usize> = (0..=classes)
        .map(|c| counts[..c].iter().sum::<i32>() as usize)
        .collect();
    let total = starts[classes];
    let mut target = out;
    for n in 0..rows {
        let row = from_raw_parts(x.add(n * features), features);
        let compared: Vec<f64> = (0..total)
            .map(|v| kernel.compare(row, from_raw_parts(vectors.add(v * features), features)))
            .collect();
        let weighted = |line: usize, class: usize| -> f64 {
            (starts[class]..starts[class + 1])
                .map(|v| (*weights.add(line * total + v)).wide() * compared[v])
                .sum()
        };
        let mut votes = vec![0; classes];
        let mut scores = Vec::new();
        for i in 0..classes {
            for j in i + 1..classes {
                let score = weighted(j - 1, i) + weighted(i, j) + (*rho.add(scores.len())).wide();
                votes[if score > 0.0 { i } else { j }] += 1;
                scores.push(score);
            }
        }
        let winner = first_of_most(&votes);
        if with_probabilities {
            let pairs: Vec<f64> = scores
                .iter()
                .enumerate()
                .map(|(k, s)| 1.0 - logistic(s * (*a.add(k)).wide() + (*b.add(k)).wide()))
                .collect();
            scores = coupled(&pairs, classes);
            transform.apply(&mut scores);
        } else if classes == 2 {
            scores = two_sided(scores[0], transform != Transform::None, transform).to_vec();
        } else {
            transform.apply(&mut scores);
        }
        *labels.add(n) = winner as i64;
        for score in scores {
            *target = score as f32;
            target = target.add(1);
        }
    }
    DONE
}

fn first_of_most(votes: &[i32]) -> usize {
    let most = votes.iter().max().copied().unwrap_or(0);
    votes.iter().position(|&count| count == most).unwrap_or(0)
}

/// Probabilities of classes from those of pairs, by the second method of Wu, Lin and Weng
/// ("Probability estimates for multi-class classification by pairwise coupling", 2004), which
/// ends where libsvm's does: results are as exact as that, not more.
fn coupled(pairs: &[f64], classes: usize) -> Vec<f64> {
    let mut first = vec![0.0; classes * classes];
    let mut k = 0;
    for i in 0..classes {
        for j in i + 1..classes {
            let probability = pairs[k].clamp(1e-7, 1.0 - 1e-7);
            first[i * classes + j] = probability;
            first[j * classes + i] = 1.0 - probability;
            k += 1;
        }
    }
    let mut q = vec![0.0; classes * classes];
    for i in 0..classes {
        for j in 0..classes {
            if i != j {
                q[i * classes + i] += first[j * classes + i] * first[j * classes + i];
                q[i * classes + j] = -first[j * classes + i] * first[i * classes + j];
            }
        }
    }
    let mut p = vec![1.0 / classes as f64; classes];
    for _ in 0..classes.max(100) {
        let mut qp: Vec<f64> = (0..classes)
            .map(|i| (0..classes).map(|j| q[i * classes + j] * p[j]).sum())
            .collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(a, b)| a * b).sum();
        if qp
            .iter()
            .all(|value| (value - pqp).abs() < 0.005 / classes as f64)
        {
            break;
        }
        for i in 0..classes {
            let own = q[i * classes + i];
            let step = (pqp - qp[i]) / own;
            let factor = 1.0 + step;
            p[i] += step;
            pqp = (pqp + step * (step * own + 2.0 * qp[i])) / (factor * factor);
            for j in 0..classes {
                qp[j] = (qp[j] + step * q[i * classes + j]) / factor;
                p[j] /= factor;
            }
        }
    }
    p
}

export!(
    "svm_regressor",
    svm_regressor(
        x: *const T,
        vectors: *const T,
        weights: *const T,
        rho: *const T,
        out: *mut T
    ),
    f32
);
export!(
    "svm_classifier",
    svm_classifier(
        x: *const T,
        vectors: *const T,
        weights: *const T,
        rho: *const T,
        a: *const T,
        b: *const T,
        labels: *mut i64,
        out: *mut f32
    ),
    f32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_pairs_that_agree_are_found_again() {
        let wanted = [0.5, 0.3, 0.2];
        let pair = |i: usize, j: usize| wanted[i] / (wanted[i] + wanted[j]);
        let found = coupled(&[pair(0, 1), pair(0, 2), pair(1, 2)], 3);
        for (a, b) in found.iter().zip(wanted) {
            assert!((a - b).abs() < 0.01, "{found:?}");
        }
    }

    #[test]
    fn ties_go_to_the_first_class() {
        assert_eq!(first_of_most(&[1, 2, 2]), 1);
    }
}
