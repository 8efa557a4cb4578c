//! What classifiers and regressors do last: the transformations of scores that ai.onnx.ml knows.

/// A transformation; its number is what a converter writes.
#[derive(Clone, Copy, PartialEq)]
pub enum Transform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

impl Transform {
    pub fn numbered(number: usize) -> Transform {
        match number {
            1 => Transform::Softmax,
            2 => Transform::Logistic,
            3 => Transform::SoftmaxZero,
            4 => Transform::Probit,
            _ => Transform::None,
        }
    }

    /// Transforms the scores of several classes.
    pub fn apply(self, scores: &mut [f64]) {
        match self {
            Transform::None => {}
            Transform::Softmax => softmax(scores, |_| true),
            Transform::Logistic => scores.iter_mut().for_each(|s| *s = logistic(*s)),
            // What is zero is no score, and stays zero.
            Transform::SoftmaxZero => softmax(scores, |s| s.abs() > 1e-7),
            Transform::Probit => scores.iter_mut().for_each(|s| *s = probit(*s)),
        }
    }
}

fn softmax(scores: &mut [f64], counts: impl Fn(f64) -> bool) {
    let most = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if counts(*score) {
            *score = (*score - most).exp();
            sum += *score;
        } else {
            *score *= (-most).exp();
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

pub fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The quantile of the normal distribution, by Winitzki's approximation of the inverse error
/// function with a = 0.147, which is what onnx's and onnxruntime's implementations have.
fn probit(p: f64) -> f64 {
    const A: f64 = 0.147;
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (std::f64::consts::PI * A) + log / 2.0;
    let inverse = ((half * half - log / A).sqrt() - half).sqrt();
    std::f64::consts::SQRT_2 * if x < 0.0 { -inverse } else { inverse }
}

/// The scores of two classes that one score tells apart, which may be a probability.
pub fn two_sided(score: f64, probability: bool, transform: Transform) -> [f64; 2] {
    match transform {
        Transform::Probit => [probit(score), 0.0],
        Transform::Logistic => [logistic(-score), logistic(score)],
        _ if probability => [1.0 - score, score],
        _ => [-score, score],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one() {
        let mut scores = [1.0, -2.0, 800.0, 799.0];
        Transform::Softmax.apply(&mut scores);
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert!(scores[2] > scores[3]);
    }

    #[test]
    fn a_zero_is_no_score() {
        let mut scores = [0.0, 1.0, 1.0];
        Transform::SoftmaxZero.apply(&mut scores);
        assert_eq!(scores, [0.0, 0.5, 0.5]);
    }

    #[test]
    fn quantiles_are_right_to_three_digits() {
        for (p, quantile) in [(0.5, 0.0), (0.975, 1.95996), (0.1, -1.28155)] {
            assert!((probit(p) - quantile).abs() < 5e-3, "{p}");
        }
    }
}
