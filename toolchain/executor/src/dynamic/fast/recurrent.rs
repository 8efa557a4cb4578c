//! LSTM and GRU with the usual activations: products by panels, cells by vectors.

use super::kernels::{
    run_strip, wgk_gru_gates, wgk_gru_state, wgk_lstm_cell, wgk_lstm_gates, wgk_lstm_state,
};
use super::panels::{multiply, packed_columns, Rows, Start};
use crate::dynamic::call::{room, Answer, Call};
use crate::dynamic::ops::recurrent::{part, run_directions, Network, Pass};
use crate::dynamic::value::Tensor;

/// Words: those of `recurrent`, of a GRU whose reset gate comes after the product, or an LSTM. Inputs:
/// data, packed weights (inputs by gates), packed recurrence (hidden by gates), two vectors that the
/// sums begin with: of the inputs, and of a GRU's recurrence; then as `recurrent`, without peepholes.
/// There is one of each per direction.
fn recurrent(call: &mut Call) -> Answer {
    let (weights, recurrence, starts) = (call.tensor(1)?, call.tensor(2)?, call.tensor(3)?);
    run_directions::<f32>(call, |network, pass| {
        let wide = network.gates * network.hidden;
        let columns = packed_columns(wide);
        let fits = |given: &Tensor, each: usize| given.count() == pass.directions * each;
        if !fits(&weights, network.inputs * columns)
            || !fits(&recurrence, network.hidden * columns)
            || !fits(&starts, 2 * wide)
        {
            return Err("its weights do not fit its input".to_string());
        }
        let d = pass.number;
        let direction = Direction {
            weights: part(&weights, d, network.inputs * columns),
            recurrence: part(&recurrence, d, network.hidden * columns),
            starts: part(&starts, d, 2 * wide),
            wide,
        };
        unsafe { direction.run(network, pass) }
    })
}

/// One direction's operands.
struct Direction<'a> {
    weights: &'a [f32],
    recurrence: &'a [f32],
    starts: &'a [f32],
    /// Gates times hidden.
    wide: usize,
}

impl Direction<'_> {
    unsafe fn run(&self, network: &Network<f32>, pass: &mut Pass<f32>) -> Answer {
        let (wide, hidden, batch) = (self.wide, network.hidden, network.batch);
        let rows = network.steps * batch;
        if rows == 0 || hidden == 0 {
            return Ok(());
        }
        let mut projected = room(vec![rows, wide], 4)?;
        let gates = projected.items_mut::<f32>().as_mut_ptr();
        let place = Rows {
            a: pass.x.as_ptr(),
            a_row: network.inputs,
            out: gates,
            out_row: wide,
            count: rows,
            depth: network.inputs,
        };
        let start = Start::per_column(self.starts);
        multiply(place, self.weights.as_ptr(), wide, start)?;
        // All sequences at once, where they are of one length.
        let many = match pass.lengths.iter().all(|&length| length == network.steps) {
            true => batch,
            false => 1,
        };
        let fed_back = room(vec![many, wide], 4)?;
        for step in 0..network.steps {
            for b in (0..batch).step_by(many) {
                if step >= pass.lengths[b] {
                    continue;
                }
                let t = match pass.is_reverse {
                    true => pass.lengths[b] - 1 - step,
                    false => step,
                };
                let cell = Cell {
                    gates: gates.add((t * batch + b) * wide),
                    h: pass.h.as_mut_ptr().add(b * hidden),
                    c: pass.c.as_mut_ptr().add(b * hidden),
                    count: many,
                };
                match network.kind {
                    1 => self.gru(&cell, hidden, fed_back.start().cast())?,
                    _ => self.lstm(&cell, hidden)?,
                }
                (b..b + many).for_each(|b| pass.write(t, b, hidden));
            }
        }
        Ok(())
    }

    unsafe fn feed_back(&self, cell: &Cell, hidden: usize, out: *mut f32, start: Start) -> Answer {
        let rows = Rows {
            a: cell.h,
            a_row: hidden,
            out,
            out_row: self.wide,
            count: cell.count,
            depth: hidden,
        };
        multiply(rows, self.recurrence.as_ptr(), self.wide, start)
    }

    /// Gates: input, output, forget, cell.
    unsafe fn lstm(&self, cell: &Cell, n: usize) -> Answer {
        let start = Start::rows(cell.gates, self.wide);
        self.feed_back(cell, n, cell.gates, start)?;
        for b in 0..cell.count {
            let gates = cell.gates.add(b * self.wide);
            let (h, c) = (cell.h.add(b * n), cell.c.add(b * n));
            run_strip(wgk_lstm_gates, gates, &[gates], 3 * n);
            run_strip(
                wgk_lstm_cell,
                c,
                &[gates.add(2 * n), c, gates, gates.add(3 * n)],
                n,
            );
            run_strip(wgk_lstm_state, h, &[gates.add(n), c], n);
        }
        Ok(())
    }

    /// Gates: update, reset, hidden.
    unsafe fn gru(&self, cell: &Cell, n: usize, fed_back: *mut f32) -> Answer {
        let start = Start::per_column(&self.starts[self.wide..]);
        self.feed_back(cell, n, fed_back, start)?;
        for b in 0..cell.count {
            let (gates, fed) = (cell.gates.add(b * self.wide), fed_back.add(b * self.wide));
            let h = cell.h.add(b * n);
            run_strip(wgk_gru_gates, gates, &[gates, fed], 2 * n);
            run_strip(
                wgk_gru_state,
                h,
                &[gates.add(2 * n), gates.add(n), fed.add(2 * n), gates, h],
                n,
            );
        }
        Ok(())
    }
}

/// What one step works on: rows of some sequences of the batch.
struct Cell {
    gates: *mut f32,
    h: *mut f32,
    c: *mut f32,
    count: usize,
}

export!("fast_recurrent", recurrent);
