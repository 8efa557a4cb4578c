//! Resize, one axis after the other.

use crate::dynamic::call::{axis, room, Answer, Call, Failure};
use crate::dynamic::ops::select::{around, picked};
use crate::dynamic::ops::unary::Real;
use crate::dynamic::value::Tensor;

/// How places of the result are places of the input.
#[derive(Clone, Copy)]
struct Rules {
    /// 0 nearest, 1 linear, 2 cubic.
    mode: i32,
    /// 0 half pixel, 1 asymmetric, 2 aligned corners, 3 pytorch's half pixel, 4 symmetric half pixel,
    /// 5 crop and resize.
    coordinates: i32,
    /// 0 half down, 1 half up, 2 floor, 3 ceil.
    rounding: i32,
    cubic: f64,
    excludes_outside: bool,
    fill: f64,
    antialias: bool,
}

/// One axis: its extent and the new one, how much larger it is, and the region that is taken.
struct Axis {
    extent: usize,
    wanted: usize,
    scale: f64,
    region: (f64, f64),
}

impl Rules {
    /// Where element `i` of the new axis lies on the old one.
    fn place(&self, i: usize, axis: &Axis) -> f64 {
        let (x, extent, wanted) = (i as f64, axis.extent as f64, axis.wanted as f64);
        // Not always a whole number: what is given may be the scale.
        let length = axis.scale * extent;
        match self.coordinates {
            1 => x / axis.scale,
            2 if length == 1.0 => 0.0,
            2 => x * (extent - 1.0) / (length - 1.0),
            3 if length == 1.0 => -0.5,
            4 => {
                let adjustment = wanted / length;
                let offset = extent / 2.0 * (1.0 - adjustment);
                offset + (x + 0.5) / axis.scale - 0.5
            }
            5 => {
                let (start, end) = axis.region;
                let span = (end - start) * (extent - 1.0);
                match length == 1.0 {
                    true => start * (extent - 1.0) + span / 2.0,
                    false => start * (extent - 1.0) + x * span / (length - 1.0),
                }
            }
            _ => (x + 0.5) / axis.scale - 0.5,
        }
    }

    fn nearest(&self, x: f64, extent: usize) -> usize {
        let rounded = match self.rounding {
            0 => (x - 0.5).ceil(),
            1 => (x + 0.5).floor(),
            2 => x.floor(),
            _ => x.ceil(),
        };
        rounded.clamp(0.0, extent as f64 - 1.0) as usize
    }

    /// The weight of an element at this distance.
    fn weight(&self, distance: f64) -> f64 {
        let (x, a) = (distance.abs(), self.cubic);
        match self.mode {
            1 => (1.0 - x).max(0.0),
            _ if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            _ if x < 2.0 => ((x - 5.0) * a * x + 8.0 * a) * x - 4.0 * a,
            _ => 0.0,
        }
    }

    /// The elements that make up element `i`, with their weights; none where it lies outside.
    fn taps(&self, i: usize, axis: &Axis) -> Option<Vec<(usize, f64)>> {
        let x = self.place(i, axis);
        let last = axis.extent as f64 - 1.0;
        if self.coordinates == 5 && !(0.0..=last).contains(&x) {
            return None;
        }
        let stretch = match self.antialias {
            true => (1.0 / axis.scale).max(1.0),
            false => 1.0,
        };
        let reach = f64::from(self.mode) * stretch;
        let first = (x - reach).floor() as i64 + i64::from(stretch == 1.0);
        let end = (x + reach).ceil() as i64;
        let end = if stretch == 1.0 {
            first + 2 * i64::from(self.mode) - 1
        } else {
            end
        };
        let mut taps = Vec::new();
        for k in first..=end {
            let inside = (0..axis.extent as i64).contains(&k);
            let weight = self.weight((k as f64 - x) / stretch);
            if inside || !self.excludes_outside {
                taps.push((k.clamp(0, axis.extent as i64 - 1) as usize, weight));
            }
        }
        let total: f64 = taps.iter().map(|tap| tap.1).sum();
        if stretch > 1.0 || self.excludes_outside {
            taps.iter_mut().for_each(|tap| tap.1 /= total);
        }
        Some(taps)
    }
}

fn floats(call: &Call, i: usize) -> Result<Vec<f64>, Failure> {
    let tensor = call.tensor(i)?;
    Ok(match tensor.item {
        8 => tensor.items::<f64>().to_vec(),
        _ => tensor.items::<f32>().iter().map(|&x| x.into()).collect(),
    })
}

/// Words: mode, coordinates, rounding, cubic coefficient, whether weights outside are left out, value
/// outside of the region, antialiasing, policy (0 stretch, 1 not larger, 2 not smaller), how many axes
/// are named (0: all) and which. Inputs: data, region, scales, sizes.
fn resize<T: Real>(call: &mut Call) -> Answer {
    let (rules, policy, named) = rules(call);
    let mut data = call.tensor(0)?;
    // The last axis first: what stands close together is chosen from as little as possible.
    for (at, axis) in axes_of(call, &data, policy, &named)?.into_iter().rev() {
        if rules.coordinates != 5 && axis.extent == axis.wanted && axis.scale == 1.0 {
            continue;
        }
        data = match rules.mode {
            0 => nearest(&data, at, &axis, &rules)?,
            _ => interpolated::<T>(&data, at, &axis, &rules)?,
        };
    }
    call.set_tensor(0, data);
    Ok(())
}

/// The same for elements of any type, of which only the nearest can be taken.
fn resize_any(call: &mut Call) -> Answer {
    let (rules, policy, named) = rules(call);
    let mut data = call.tensor(0)?;
    for (at, axis) in axes_of(call, &data, policy, &named)? {
        data = nearest(&data, at, &axis, &rules)?;
    }
    call.set_tensor(0, data);
    Ok(())
}

fn rules(call: &mut Call) -> (Rules, i32, Vec<i64>) {
    let words = &mut call.words;
    let rules = Rules {
        mode: words.int(),
        coordinates: words.int(),
        rounding: words.int(),
        cubic: words.float().into(),
        excludes_outside: words.flag(),
        fill: words.float().into(),
        antialias: words.flag(),
    };
    let policy = words.int();
    let named = words.counted().iter().map(|&a| a.into()).collect();
    (rules, policy, named)
}

fn axes_of(
    call: &Call,
    data: &Tensor,
    policy: i32,
    named: &[i64],
) -> Result<Vec<(usize, Axis)>, Failure> {
    let rank = data.dims.len();
    let axes = match named.is_empty() {
        true => (0..rank).collect(),
        false => named
            .iter()
            .map(|&a| axis(a, rank))
            .collect::<Result<Vec<_>, _>>()?,
    };
    let region = match call.has(1) && call.tensor(1)?.count() > 0 {
        true => floats(call, 1)?,
        false => [vec![0.0; axes.len()], vec![1.0; axes.len()]].concat(),
    };
    let sizes = match call.has(3) && call.tensor(3)?.count() > 0 {
        true => Some(call.numbers(3)?),
        false => None,
    };
    let count = axes.len();
    let mut scales = match &sizes {
        None => floats(call, 2)?,
        Some(sizes) if sizes.len() == count => (axes.iter().zip(sizes))
            .map(|(&at, &size)| size as f64 / data.dims[at] as f64)
            .collect(),
        Some(_) => return Err("it has not one size per axis".to_string()),
    };
    if scales.len() != count
        || region.len() != 2 * count
        || scales.iter().any(|&s| s.is_nan() || s <= 0.0)
    {
        return Err("it has not one scale above 0 per axis".to_string());
    }
    if sizes.is_some() && policy != 0 {
        let one = match policy {
            1 => scales.iter().copied().fold(f64::INFINITY, f64::min),
            _ => scales.iter().copied().fold(0.0, f64::max),
        };
        scales.fill(one);
    }
    let each = axes.iter().enumerate().map(|(i, &at)| {
        let (extent, span) = (data.dims[at], region[count + i] - region[i]);
        let exact = extent as f64 * scales[i];
        let wanted = match &sizes {
            Some(sizes) if policy == 0 => sizes[i].max(0) as usize,
            Some(_) => exact.round() as usize,
            None if call.has(1) && span != 1.0 => (exact * span).floor() as usize,
            None => exact.floor() as usize,
        };
        let axis = Axis {
            extent,
            wanted,
            scale: scales[i],
            region: (region[i], region[count + i]),
        };
        (at, axis)
    });
    Ok(each.collect())
}

fn nearest(data: &Tensor, at: usize, axis: &Axis, rules: &Rules) -> Result<Tensor, Failure> {
    let place = |i| rules.nearest(rules.place(i, axis), axis.extent);
    picked(data, at, &(0..axis.wanted).map(place).collect::<Vec<_>>())
}

fn interpolated<T: Real>(
    data: &Tensor,
    at: usize,
    axis: &Axis,
    rules: &Rules,
) -> Result<Tensor, Failure> {
    let (outer, inner) = around(&data.dims, at);
    let mut dims = data.dims.clone();
    dims[at] = axis.wanted;
    let mut out = room(dims, data.item)?;
    let taps: Vec<_> = (0..axis.wanted).map(|i| rules.taps(i, axis)).collect();
    let (from, to) = (data.items::<T>(), out.items_mut::<T>());
    if inner == 0 {
        return Ok(out);
    }
    for (i, row) in to.chunks_exact_mut(inner).enumerate() {
        let (o, j) = (i / axis.wanted, i % axis.wanted);
        debug_assert!(o < outer);
        let taps = match &taps[j] {
            Some(taps) => taps,
            None => {
                row.fill(T::of(rules.fill));
                continue;
            }
        };
        row.fill(T::ZERO);
        for &(k, weight) in taps {
            let source = &from[(o * axis.extent + k) * inner..][..inner];
            let weight = T::of(weight);
            let pairs = row.iter_mut().zip(source);
            pairs.for_each(|(o, &x)| *o = o.plus(x.times(weight)));
        }
    }
    Ok(out)
}

export!("resize", resize, f32 f64);
export!("resize_any", resize_any);
