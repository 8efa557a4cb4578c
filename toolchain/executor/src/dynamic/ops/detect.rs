//! Non-maximum suppression.

use crate::dynamic::call::{Answer, Call, Failure};

/// Words: whether boxes are centre and size. Inputs: boxes (batch, boxes, 4), scores (batch, classes,
/// boxes), how many boxes per class at most, the overlap and the score above which a box goes or stays
/// (the last three may be left out). Output: batch, class and box of each that is selected.
fn suppress(call: &mut Call) -> Answer {
    let centred = call.words.flag();
    let (boxes, scores) = (call.tensor(0)?, call.tensor(1)?);
    let (count, classes) = match (&boxes.dims[..], &scores.dims[..]) {
        ([b, n, 4], [c, classes, m]) if b == c && n == m => (*n, *classes),
        _ => return Err("its boxes do not fit its scores".to_string()),
    };
    let limit = match call.has(2) {
        true => call.numbers(2)?.first().copied().unwrap_or(0).max(0) as usize,
        false => 0,
    };
    let overlap = threshold(call, 3)?.unwrap_or(0.0);
    let least = threshold(call, 4)?;
    let corners: Vec<[f32; 4]> = (boxes.items::<f32>().chunks_exact(4))
        .map(|b| corners(b, centred))
        .collect();
    let mut selected: Vec<i64> = Vec::new();
    for (row, scores) in scores.items::<f32>().chunks(count.max(1)).enumerate() {
        let (batch, class) = (row / classes.max(1), row % classes.max(1));
        let mut ranked: Vec<usize> = (0..scores.len())
            .filter(|&i| least.map_or(true, |least| scores[i] > least))
            .collect();
        let order = |a: &usize, b: &usize| scores[*b].partial_cmp(&scores[*a]);
        ranked.sort_by(|a, b| order(a, b).unwrap_or(std::cmp::Ordering::Equal));
        let corners = &corners[batch * count..(batch + 1) * count];
        let mut kept: Vec<usize> = Vec::new();
        for i in ranked {
            if kept.len() == limit {
                break;
            }
            if kept
                .iter()
                .all(|&k| shared(&corners[k], &corners[i]) <= overlap)
            {
                kept.push(i);
                selected.extend([batch as i64, class as i64, i as i64]);
            }
        }
    }
    let mut out = call.room::<i64>(vec![selected.len() / 3, 3])?;
    out.items_mut().copy_from_slice(&selected);
    call.set_tensor(0, out);
    Ok(())
}

fn threshold(call: &Call, i: usize) -> Result<Option<f32>, Failure> {
    match call.has(i) {
        true => Ok(call.tensor(i)?.items::<f32>().first().copied()),
        false => Ok(None),
    }
}

/// The lower and the upper corner, whichever way the box was given.
fn corners(b: &[f32], centred: bool) -> [f32; 4] {
    if centred {
        let (w, h) = (b[2] / 2.0, b[3] / 2.0);
        return [b[0] - w, b[1] - h, b[0] + w, b[1] + h];
    }
    [
        b[0].min(b[2]),
        b[1].min(b[3]),
        b[0].max(b[2]),
        b[1].max(b[3]),
    ]
}

/// Intersection over union.
fn shared(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    let area = |x: &[f32; 4]| (x[2] - x[0]) * (x[3] - x[1]);
    let both = side(0) * side(1);
    let union = area(a) + area(b) - both;
    if union > 0.0 {
        both / union
    } else {
        0.0
    }
}

export!("non_max_suppression", suppress);
