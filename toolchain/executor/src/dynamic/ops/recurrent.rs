//! LSTM, GRU and RNN, of any direction, activations, lengths and layout.

use crate::dynamic::call::{room, Answer, Call, Failure};
use crate::dynamic::ops::product::multiply_into;
use crate::dynamic::ops::unary::{sigmoid, Real};
use crate::dynamic::value::Tensor;

/// An activation and its parameters.
#[derive(Clone, Copy)]
struct Activation<T> {
    kind: i32,
    alpha: T,
    beta: T,
}

impl<T: Real> Activation<T> {
    /// By the number that wasmgraph/dynamic/operators/recurrent.py gives it.
    fn of(self, x: T) -> T {
        let (alpha, beta) = (self.alpha, self.beta);
        let bounded = |x: T| x.larger(T::ZERO).smaller(T::ONE);
        let minus_one = |x: T| x.through(f32::exp_m1, f64::exp_m1);
        match self.kind {
            0 => sigmoid(x),
            1 => x.tanh(),
            2 => x.larger(T::ZERO),
            3 => alpha.times(x).plus(beta),
            4 if x < T::ZERO => alpha.times(x),
            5 if x <= alpha => T::ZERO,
            6 => alpha.times(beta.times(x).tanh()),
            7 => bounded(alpha.times(x).plus(beta)),
            8 if x < T::ZERO => alpha.times(minus_one(x)),
            9 => x.over(T::ONE.plus(x.larger(-x))),
            10 => T::ONE.plus(x.exp()).through(f32::ln, f64::ln),
            _ => x,
        }
    }
}

/// What all directions share.
pub struct Network<T> {
    pub kind: i32,
    pub steps: usize,
    pub batch: usize,
    pub inputs: usize,
    pub hidden: usize,
    pub gates: usize,
    clip: T,
    /// GRU: whether the reset gate is applied after the product. LSTM: whether input and forget gate
    /// are one.
    flag: bool,
}

/// One direction's operands.
struct Direction<'a, T> {
    weights: &'a [T],
    recurrence: &'a [T],
    /// Of the input and of the recurrence, or none.
    bias: Option<&'a [T]>,
    peepholes: Option<&'a [T]>,
    activations: [Activation<T>; 3],
    is_reverse: bool,
}

/// The rows of a matrix as columns.
fn turned<T: Copy>(matrix: &[T], rows: usize, columns: usize) -> Vec<T> {
    let item = |i: usize| matrix[i % rows * columns + i / rows];
    (0..rows * columns).map(item).collect()
}

impl<T: Real> Network<T> {
    fn clipped(&self, x: T) -> T {
        match self.clip > T::ZERO {
            true => x.larger(-self.clip).smaller(self.clip),
            false => x,
        }
    }

    /// Runs one direction.
    fn run(&self, direction: &Direction<T>, pass: &mut Pass<T>) {
        let (hidden, wide) = (self.hidden, self.gates * self.hidden);
        let weights = turned(direction.weights, wide, self.inputs);
        let recurrence = turned(direction.recurrence, wide, hidden);
        let rows = self.steps * self.batch;
        let mut projected = vec![T::ZERO; rows * wide];
        for row in projected.chunks_mut(wide.max(1)) {
            if let Some(bias) = direction.bias {
                row.copy_from_slice(&bias[..wide]);
            }
        }
        multiply_into(
            pass.x,
            &weights,
            wide,
            &mut projected,
            wide,
            self.inputs,
            wide,
        );
        let mut fed_back = vec![T::ZERO; wide];
        for step in 0..self.steps {
            for b in 0..self.batch {
                if step >= pass.lengths[b] {
                    continue;
                }
                let t = match direction.is_reverse {
                    true => pass.lengths[b] - 1 - step,
                    false => step,
                };
                let start = (t * self.batch + b) * wide;
                let gates = &mut projected[start..start + wide];
                match direction.bias {
                    Some(bias) => fed_back.copy_from_slice(&bias[wide..2 * wide]),
                    None => fed_back.fill(T::ZERO),
                }
                let h = &mut pass.h[b * hidden..(b + 1) * hidden];
                multiply_into(h, &recurrence, wide, &mut fed_back, wide, hidden, wide);
                let c = &mut pass.c[b * hidden..(b + 1) * hidden];
                match self.kind {
                    0 => self.plain(direction, gates, &fed_back, h),
                    1 => self.gru(direction, gates, &mut fed_back, &recurrence, h),
                    _ => self.lstm(direction, gates, &fed_back, h, c),
                }
                pass.write(t, b, hidden);
            }
        }
    }

    fn plain(&self, direction: &Direction<T>, gates: &[T], fed_back: &[T], h: &mut [T]) {
        for (j, h) in h.iter_mut().enumerate() {
            *h = direction.activations[0].of(self.clipped(gates[j].plus(fed_back[j])));
        }
    }

    /// Gates: update, reset, hidden.
    fn gru(
        &self,
        direction: &Direction<T>,
        gates: &mut [T],
        fed_back: &mut [T],
        recurrence: &[T],
        h: &mut [T],
    ) {
        let (n, wide) = (self.hidden, 3 * self.hidden);
        let [f, g, _] = direction.activations;
        for j in 0..2 * n {
            gates[j] = f.of(self.clipped(gates[j].plus(fed_back[j])));
        }
        if !self.flag {
            // The reset gate comes before the product, which is done again for it.
            let scaled: Vec<T> = (0..n).map(|j| gates[n + j].times(h[j])).collect();
            match direction.bias {
                Some(bias) => fed_back[2 * n..].copy_from_slice(&bias[wide + 2 * n..]),
                None => fed_back[2 * n..].fill(T::ZERO),
            }
            let part = &mut fed_back[2 * n..];
            multiply_into(&scaled, &recurrence[2 * n..], wide, part, n, n, n);
        }
        for j in 0..n {
            let back = match self.flag {
                true => gates[n + j].times(fed_back[2 * n + j]),
                false => fed_back[2 * n + j],
            };
            let new = g.of(self.clipped(gates[2 * n + j].plus(back)));
            let z = gates[j];
            h[j] = T::ONE.less(z).times(new).plus(z.times(h[j]));
        }
    }

    /// Gates: input, output, forget, cell.
    fn lstm(
        &self,
        direction: &Direction<T>,
        gates: &[T],
        fed_back: &[T],
        h: &mut [T],
        c: &mut [T],
    ) {
        let n = self.hidden;
        let [f, g, last] = direction.activations;
        for j in 0..n {
            let sum = |gate: usize| gates[gate * n + j].plus(fed_back[gate * n + j]);
            let peep = |gate: usize, c: T| {
                direction
                    .peepholes
                    .map_or(T::ZERO, |p| p[gate * n + j].times(c))
            };
            let input = f.of(self.clipped(sum(0).plus(peep(0, c[j]))));
            let forget = match self.flag {
                true => T::ONE.less(input),
                false => f.of(self.clipped(sum(2).plus(peep(2, c[j])))),
            };
            let cell = g.of(self.clipped(sum(3)));
            c[j] = forget.times(c[j]).plus(input.times(cell));
            let output = f.of(self.clipped(sum(1).plus(peep(1, c[j]))));
            h[j] = output.times(last.of(c[j]));
        }
    }
}

/// Exchanges the first two axes.
fn exchanged<T: Copy>(data: &Tensor) -> Result<Tensor, Failure> {
    let mut dims = data.dims.clone();
    dims.swap(0, 1);
    let mut out = room(dims, data.item)?;
    let mut steps = super::shape::strides(&data.dims);
    steps.swap(0, 1);
    super::shape::gather_strided(data.items::<T>(), 0, &steps, &mut out);
    Ok(out)
}

/// Words: kind (0 RNN, 1 GRU, 2 LSTM), hidden units, directions, whether the only one is reverse,
/// whether the batch comes first, the flag of `Network`, clip as float32 (0: none), then three
/// activations for each direction: number, alpha, beta. Inputs: data, weights, recurrence, bias,
/// lengths, first state, first cell, peepholes. Outputs: all states, the last state, the last cell.
fn recurrent<T: Real>(call: &mut Call) -> Answer {
    let (weights, recurrence) = (call.tensor(1)?, call.tensor(2)?);
    let optional = |i: usize| match call.has(i) {
        true => call.tensor(i).map(Some),
        false => Ok(None),
    };
    let (bias, peepholes) = (optional(3)?, optional(7)?);
    run_directions::<T>(call, |network, pass| {
        let (count, d, hidden) = (pass.directions, pass.number, network.hidden);
        let wide = network.gates * hidden;
        let fits = |given: &Option<Tensor>, each: usize| {
            (given.as_ref()).map_or(true, |given| given.count() == count * each)
        };
        if weights.count() != count * wide * network.inputs
            || recurrence.count() != count * wide * hidden
        {
            return Err("its weights do not fit its input".to_string());
        }
        if !fits(&bias, 2 * wide) || !fits(&peepholes, 3 * hidden) {
            return Err("its operands do not fit together".to_string());
        }
        let direction = Direction {
            weights: part(&weights, d, wide * network.inputs),
            recurrence: part(&recurrence, d, wide * hidden),
            bias: bias.as_ref().map(|b| part(b, d, 2 * wide)),
            peepholes: peepholes.as_ref().map(|p| part(p, d, 3 * hidden)),
            activations: pass.activations,
            is_reverse: pass.is_reverse,
        };
        network.run(&direction, pass);
        Ok(())
    })
}

/// Part `number` of a tensor that has parts of so many elements.
pub fn part<T>(given: &Tensor, number: usize, each: usize) -> &[T] {
    &given.items()[number * each..(number + 1) * each]
}

/// One direction of a network over a batch of sequences.
pub struct Pass<'a, T> {
    pub directions: usize,
    pub number: usize,
    pub is_reverse: bool,
    activations: [Activation<T>; 3],
    /// Steps by batch by inputs.
    pub x: &'a [T],
    /// Of every sequence.
    pub lengths: &'a [usize],
    /// Batch by hidden: first the initial state, then the last one.
    pub h: &'a mut [T],
    pub c: &'a mut [T],
    /// All states: steps by directions by batch by hidden.
    all: &'a mut [T],
}

impl<T: Copy> Pass<'_, T> {
    /// Keeps the state of a batch element as that of a step.
    pub fn write(&mut self, step: usize, b: usize, hidden: usize) {
        let place = (step * self.directions + self.number) * self.lengths.len() + b;
        self.all[place * hidden..(place + 1) * hidden]
            .copy_from_slice(&self.h[b * hidden..(b + 1) * hidden]);
    }
}

/// Everything but the weights: see `recurrent`, whose words follow next.
pub fn run_directions<T: Real>(
    call: &mut Call,
    mut run: impl FnMut(&Network<T>, &mut Pass<T>) -> Answer,
) -> Answer {
    let (kind, hidden, count) = (call.words.int(), call.words.size(), call.words.size());
    let (reverse, batch_first) = (call.words.flag(), call.words.flag());
    let flag = call.words.flag();
    let clip = T::of(call.words.float().into());
    let mut data = call.tensor(0)?;
    if data.dims.len() != 3 {
        return Err("its input has not three axes".to_string());
    }
    if batch_first {
        data = exchanged::<T>(&data)?;
    }
    let gates = [1, 3, 4][kind as usize];
    let (steps, batch, inputs) = (data.dims[0], data.dims[1], data.dims[2]);
    let network = Network {
        kind,
        steps,
        batch,
        inputs,
        hidden,
        gates,
        clip,
        flag,
    };
    let given = |i: usize| -> Result<Option<Tensor>, Failure> {
        if !call.has(i) {
            return Ok(None);
        }
        let mut tensor = call.tensor(i)?;
        if batch_first {
            tensor = exchanged::<T>(&tensor)?;
        }
        if tensor.count() != count * batch * hidden {
            return Err("its operands do not fit together".to_string());
        }
        Ok(Some(tensor))
    };
    let (first_h, first_c) = (given(5)?, given(6)?);
    let lengths: Vec<usize> = match call.has(4) {
        true => call
            .numbers(4)?
            .iter()
            .map(|&n| (n.max(0) as usize).min(steps))
            .collect(),
        false => vec![steps; batch],
    };
    if lengths.len() != batch {
        return Err("it has not one length per sequence".to_string());
    }
    let mut all = call.room::<T>(vec![steps, count, batch, hidden])?;
    let mut last_h = call.room::<T>(vec![count, batch, hidden])?;
    let mut last_c = call.room::<T>(vec![count, batch, hidden])?;
    all.items_mut::<T>().fill(T::ZERO);
    for d in 0..count {
        let mut activation = || Activation {
            kind: call.words.int(),
            alpha: T::of(call.words.float().into()),
            beta: T::of(call.words.float().into()),
        };
        let part = d * batch * hidden..(d + 1) * batch * hidden;
        let h = &mut last_h.items_mut::<T>()[part.clone()];
        let c = &mut last_c.items_mut::<T>()[part.clone()];
        for (state, first) in [(&mut *h, &first_h), (&mut *c, &first_c)] {
            match first {
                Some(first) => state.copy_from_slice(&first.items::<T>()[part.clone()]),
                None => state.fill(T::ZERO),
            }
        }
        let mut pass = Pass {
            directions: count,
            number: d,
            is_reverse: reverse || d == 1,
            activations: [activation(), activation(), activation()],
            x: data.items(),
            lengths: &lengths,
            h,
            c,
            all: all.items_mut(),
        };
        run(&network, &mut pass)?;
    }
    if batch_first {
        // batch, steps, directions, hidden; and batch, directions, hidden.
        let own = super::shape::strides(&all.dims);
        let mut out = call.room::<T>(vec![batch, steps, count, hidden])?;
        let order = [own[2], own[0], own[1], own[3]];
        super::shape::gather_strided(all.items::<T>(), 0, &order, &mut out);
        all = out;
        last_h = exchanged::<T>(&last_h)?;
        last_c = exchanged::<T>(&last_c)?;
    }
    call.set_tensor(0, all);
    call.set_tensor(1, last_h);
    call.set_tensor(2, last_c);
    Ok(())
}

export!("recurrent", recurrent, f32 f64);
