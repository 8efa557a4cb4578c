//! Einstein's summation, term by term.

use crate::dynamic::call::{Answer, Call};
use crate::dynamic::ops::shape::strides;
use crate::dynamic::ops::window::unravel;
use crate::dynamic::value::Tensor;
use crate::operators::number::Number;

/// Words: how many letters there are, how many of them (the first ones) are the result's, then for
/// each operand how many axes it has and their letters.
fn einsum<T: Number>(call: &mut Call) -> Answer {
    let (letters, kept) = (call.words.size(), call.words.size());
    let operands: Vec<Tensor> = (0..call.input_count())
        .map(|i| call.tensor(i))
        .collect::<Result<_, _>>()?;
    let mut extents = vec![1; letters];
    // How far each operand moves along each letter.
    let mut steps = vec![vec![0; letters]; operands.len()];
    for (operand, steps) in operands.iter().zip(&mut steps) {
        let axes = call.words.counted();
        if axes.len() != operand.dims.len() {
            return Err("an operand has another rank than its equation says".to_string());
        }
        let own = strides(&operand.dims);
        for (k, &letter) in axes.iter().enumerate() {
            let (letter, extent) = (letter as usize, operand.dims[k]);
            if extent == 1 {
                continue;
            }
            if extents[letter] != 1 && extents[letter] != extent {
                return Err("its operands differ in the extent of one letter".to_string());
            }
            extents[letter] = extent;
            steps[letter] += own[k];
        }
    }
    let (shape, summed) = extents.split_at(kept);
    let terms: usize = summed.iter().product();
    let mut out = call.room::<T>(shape.to_vec())?;
    let (mut at, mut over) = (vec![0; kept], vec![0; letters - kept]);
    for (i, item) in out.items_mut::<T>().iter_mut().enumerate() {
        unravel(i, shape, &mut at);
        let mut total = T::ZERO;
        for t in 0..terms {
            unravel(t, summed, &mut over);
            let term = operands
                .iter()
                .zip(&steps)
                .fold(T::ONE, |term, (operand, steps)| {
                    let index = at.iter().chain(&over);
                    let place: usize = index.zip(steps).map(|(&i, &step)| i * step).sum();
                    term.times(operand.items::<T>()[place])
                });
            total = total.plus(term);
        }
        *item = total;
    }
    call.set_tensor(0, out);
    Ok(())
}

export!("einsum", einsum, f32 f64 i32 i64);
