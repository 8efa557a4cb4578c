//! Normalisation.

use crate::dynamic::call::{axis, Answer, Call};
use crate::dynamic::ops::unary::Real;
use crate::dynamic::value::Tensor;

/// Mean and variance of some elements, summed in float64.
fn moments<T: Real>(items: &[T]) -> (f64, f64) {
    let count = items.len().max(1) as f64;
    let mean = items.iter().map(|x| x.wide()).sum::<f64>() / count;
    let squares = items.iter().map(|x| (x.wide() - mean).powi(2));
    (mean, squares.sum::<f64>() / count)
}

/// Words: epsilon as float32. Inputs: data, scale, bias, mean, variance, one per channel (axis 1).
fn batch_norm<T: Real>(call: &mut Call) -> Answer {
    let epsilon = T::of(call.words.float().into());
    let data = call.tensor(0)?;
    let channels = data.dims.get(1).copied().unwrap_or(1);
    let parts: Vec<Tensor> = (1..5).map(|i| call.tensor(i)).collect::<Result<_, _>>()?;
    if parts.iter().any(|part| part.count() != channels) {
        return Err("it has not one scale per channel".to_string());
    }
    let of = |i: usize, c: usize| parts[i].items::<T>()[c];
    let inner: usize = data.dims.iter().skip(2).product();
    let mut out = call.room::<T>(data.dims.clone())?;
    let (from, to) = (data.items::<T>(), out.items_mut::<T>());
    let size = inner.max(1);
    for (i, (to, from)) in to.chunks_mut(size).zip(from.chunks(size)).enumerate() {
        let c = i % channels;
        let scale = of(0, c).over(of(3, c).plus(epsilon).sqrt());
        let shift = of(1, c).less(of(2, c).times(scale));
        let pairs = to.iter_mut().zip(from);
        pairs.for_each(|(o, &x)| *o = x.times(scale).plus(shift));
    }
    call.set_tensor(0, out);
    Ok(())
}

/// Words: epsilon as float32. Inputs: data, scale and bias, one per channel (axis 1).
fn instance_norm<T: Real>(call: &mut Call) -> Answer {
    let epsilon = f64::from(call.words.float());
    let (data, scale, bias) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let channels = data.dims.get(1).copied().unwrap_or(1);
    if scale.count() != channels || bias.count() != channels {
        return Err("it has not one scale per channel".to_string());
    }
    let size = data.dims.iter().skip(2).product::<usize>().max(1);
    let mut out = call.room::<T>(data.dims.clone())?;
    let (from, to) = (data.items::<T>(), out.items_mut::<T>());
    for (i, (to, from)) in to.chunks_mut(size).zip(from.chunks(size)).enumerate() {
        let c = i % channels;
        let (mean, variance) = moments(from);
        let factor = scale.items::<T>()[c].wide() / (variance + epsilon).sqrt();
        let shift = T::of(bias.items::<T>()[c].wide() - mean * factor);
        let factor = T::of(factor);
        let pairs = to.iter_mut().zip(from);
        pairs.for_each(|(o, &x)| *o = x.times(factor).plus(shift));
    }
    call.set_tensor(0, out);
    Ok(())
}

/// Words: the first axis that is normalised, epsilon as float32. Inputs: data, scale, bias (may be
/// left out), which broadcast to the axes that are normalised. Outputs: data, mean, 1 / deviation.
fn layer_norm<T: Real>(call: &mut Call) -> Answer {
    let given = call.words.int();
    let epsilon = f64::from(call.words.float());
    let data = call.tensor(0)?;
    let at = axis(given.into(), data.dims.len())?;
    let inner: usize = data.dims[at..].iter().product();
    let mut dims = data.dims.clone();
    dims[at..].fill(1);
    let mut means = call.room::<T>(dims.clone())?;
    let mut factors = call.room::<T>(dims)?;
    let mut out = call.room::<T>(data.dims.clone())?;
    let size = inner.max(1);
    let rows = out.items_mut::<T>().chunks_mut(size);
    for (i, (to, from)) in rows.zip(data.items::<T>().chunks(size)).enumerate() {
        let (mean, variance) = moments(from);
        let factor = T::of(1.0 / (variance + epsilon).sqrt());
        let mean = T::of(mean);
        means.items_mut::<T>()[i] = mean;
        factors.items_mut::<T>()[i] = factor;
        let pairs = to.iter_mut().zip(from);
        pairs.for_each(|(o, &x)| *o = x.less(mean).times(factor));
    }
    out = super::binary::zip(&out, &call.tensor(1)?, T::times)?;
    if call.has(2) {
        out = super::binary::zip(&out, &call.tensor(2)?, T::plus)?;
    }
    call.set_tensor(0, out);
    call.set_tensor(1, means);
    call.set_tensor(2, factors);
    Ok(())
}

export!("batch_norm", batch_norm, f32 f64);
export!("instance_norm", instance_norm, f32 f64);
export!("layer_norm", layer_norm, f32 f64);
