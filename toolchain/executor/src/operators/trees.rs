//! Tree ensembles: classifiers and regressors of ai.onnx.ml.

#![allow(clippy::too_many_arguments)] // one per tensor

use super::number::Real;
use super::scores::{two_sided, Transform};
use super::{Words, DONE};
use std::slice::from_raw_parts;

/// How the children of a node are chosen; after these comes `LEAF`.
const LEAF: i32 = 6;

/// Added to the mode of a node whose first child is taken where a value is missing (NaN).
const MISSING: i32 = 8;

/// Trees as flat arrays. Of each node `nodes` has four words: how it chooses, the feature and both
/// children; or of a leaf, after `LEAF`, where its votes begin and how many there are.
struct Ensemble<'a, T> {
    nodes: &'a [[i32; 4]],
    splits: &'a [T],
    roots: &'a [i32],
    targets: &'a [i32],
    weights: &'a [T],
}

/// How the votes for one target make a score.
#[derive(Clone, Copy)]
enum Aggregate {
    Average,
    Sum,
    Least,
    Most,
}

impl<T: Real> Ensemble<'_, T> {
    /// Words: how many nodes, roots and votes.
    unsafe fn new(
        words: &mut Words,
        nodes: *const i32,
        splits: *const T,
        roots: *const i32,
        targets: *const i32,
        weights: *const T,
    ) -> Self {
        let (count, trees, votes) = (words.size(), words.size(), words.size());
        Ensemble {
            nodes: from_raw_parts(nodes.cast(), count),
            splits: from_raw_parts(splits, count),
            roots: from_raw_parts(roots, trees),
            targets: from_raw_parts(targets, votes),
            weights: from_raw_parts(weights, votes),
        }
    }

    /// The leaf that a row ends in, from the root of a tree.
    fn leaf(&self, root: i32, row: &[T]) -> &[i32; 4] {
        let mut at = root as usize;
        loop {
            let node = &self.nodes[at];
            if node[0] == LEAF {
                return node;
            }
            let first = chooses_first(node[0], row[node[1] as usize], self.splits[at]);
            at = node[if first { 2 } else { 3 }] as usize;
        }
    }

    /// The score of every target, None where no tree has a vote for it.
    fn scores(&self, row: &[T], aggregate: Aggregate, scores: &mut [Option<f64>]) {
        scores.fill(None);
        for &root in self.roots {
            let leaf = self.leaf(root, row);
            for vote in leaf[1] as usize..(leaf[1] + leaf[2]) as usize {
                let score = &mut scores[self.targets[vote] as usize];
                let weight = self.weights[vote].wide();
                *score = Some(match (*score, aggregate) {
                    (None, _) => weight,
                    (Some(s), Aggregate::Least) => s.min(weight),
                    (Some(s), Aggregate::Most) => s.max(weight),
                    (Some(s), _) => s + weight,
                });
            }
        }
        if let Aggregate::Average = aggregate {
            let trees = self.roots.len() as f64;
            scores.iter_mut().flatten().for_each(|s| *s /= trees);
        }
    }
}

#[allow(clippy::eq_op)] // only NaN differs from itself
fn chooses_first<T: Real>(mode: i32, value: T, split: T) -> bool {
    if value != value && mode >= MISSING {
        return true;
    }
    match mode % MISSING {
        0 => value <= split,
        1 => value < split,
        2 => value >= split,
        3 => value > split,
        4 => value == split,
        _ => value != split,
    }
}

/// Words: nodes, roots, votes; rows, features, targets, aggregate function, transformation.
/// `base` has what is added to every target. One target alone is only transformed by probit.
unsafe fn tree_regressor<T: Real>(
    mut words: Words,
    x: *const T,
    nodes: *const i32,
    splits: *const T,
    roots: *const i32,
    targets: *const i32,
    weights: *const T,
    base: *const T,
    out: *mut T,
) -> i32 {
    let ensemble = Ensemble::new(&mut words, nodes, splits, roots, targets, weights);
    let (rows, features, count) = (words.size(), words.size(), words.size());
    let aggregate = match words.size() {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Least,
        _ => Aggregate::Most,
    };
    let transform = Transform::numbered(words.size());
    let mut found = vec![None; count];
    let mut scores = vec![0.0; count];
    for n in 0..rows {
        let row = from_raw_parts(x.add(n * features), features);
        ensemble.scores(row, aggregate, &mut found);
        for (k, score) in scores.iter_mut().enumerate() {
            *score = found[k].unwrap_or(0.0) + (*base.add(k)).wide();
        }
        if count > 1 || transform == Transform::Probit {
            transform.apply(&mut scores);
        }
        for (k, score) in scores.iter().enumerate() {
            *out.add(n * count + k) = T::narrow(*score);
        }
    }
    DONE
}

/// Words: nodes, roots, votes; rows, features, classes, transformation, how many base values there
/// are, whether all votes are for one of two classes, whether no vote is negative.
/// Answers the number of the winning class per row, and the scores of all. Where the votes for the
/// first of two classes decide alone, they are a score for the second, as onnxruntime has it; where
/// both have votes the higher score wins, as onnx's reference has it (onnxruntime takes the second
/// class whenever its score is positive).
unsafe fn tree_classifier<T: Real>(
    mut words: Words,
    x: *const T,
    nodes: *const i32,
    splits: *const T,
    roots: *const i32,
    targets: *const i32,
    weights: *const T,
    base: *const T,
    labels: *mut i64,
    out: *mut f32,
) -> i32 {
    let ensemble = Ensemble::new(&mut words, nodes, splits, roots, targets, weights);
    let (rows, features, classes) = (words.size(), words.size(), words.size());
    let transform = Transform::numbered(words.size());
    let base: Vec<f64> = (0..words.size()).map(|k| (*base.add(k)).wide()).collect();
    let (one_sided, positive) = (words.flag(), words.flag());
    let voted = ensemble
        .targets
        .first()
        .map_or(0, |&target| target as usize);
    let mut found = vec![None; classes];
    let mut scores = vec![0.0; classes];
    for n in 0..rows {
        let row = from_raw_parts(x.add(n * features), features);
        ensemble.scores(row, Aggregate::Sum, &mut found);
        for (k, value) in base.iter().enumerate() {
            found[k] = Some(found[k].unwrap_or(0.0) + value);
        }
        for (score, value) in scores.iter_mut().zip(&found) {
            *score = value.unwrap_or(0.0);
        }
        let label = if one_sided {
            let score = scores[voted];
            if voted == 0 {
                scores.copy_from_slice(&two_sided(score, positive, transform));
            } else {
                transform.apply(&mut scores);
            }
            usize::from(score > if positive { 0.5 } else { 0.0 })
        } else {
            transform.apply(&mut scores);
            best(&found)
        };
        *labels.add(n) = label as i64;
        for (k, score) in scores.iter().enumerate() {
            *out.add(n * classes + k) = *score as f32;
        }
    }
    DONE
}

/// The first class with the highest score, among those that have one.
fn best(scores: &[Option<f64>]) -> usize {
    let mut winner = 0;
    for (k, score) in scores.iter().enumerate() {
        if score.is_some() && (scores[winner].is_none() || *score > scores[winner]) {
            winner = k;
        }
    }
    winner
}

export!(
    "tree_regressor",
    tree_regressor(
        x: *const T,
        nodes: *const i32,
        splits: *const T,
        roots: *const i32,
        targets: *const i32,
        weights: *const T,
        base: *const T,
        out: *mut T
    ),
    f32 f64
);
export!(
    "tree_classifier",
    tree_classifier(
        x: *const T,
        nodes: *const i32,
        splits: *const T,
        roots: *const i32,
        targets: *const i32,
        weights: *const T,
        base: *const T,
        labels: *mut i64,
        out: *mut f32
    ),
    f32 f64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_chooses() {
        let chosen = |mode| [1.0f32, 2.0, 3.0].map(|value| chooses_first(mode, value, 2.0));
        assert_eq!(chosen(0), [true, true, false]);
        assert_eq!(chosen(1), [true, false, false]);
        assert_eq!(chosen(2), [false, true, true]);
        assert_eq!(chosen(3), [false, false, true]);
        assert_eq!(chosen(4), [false, true, false]);
        assert_eq!(chosen(5), [true, false, true]);
        assert!(!chooses_first(0, f32::NAN, 2.0));
        assert!(chooses_first(MISSING, f32::NAN, 2.0));
    }

    #[test]
    fn the_first_of_the_best_wins_and_what_has_no_score_does_not() {
        assert_eq!(best(&[None, Some(-2.0), Some(-1.0), Some(-1.0)]), 2);
        assert_eq!(best(&[None, None]), 0);
    }
}
