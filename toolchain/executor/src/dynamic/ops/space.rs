//! Blocks of an image as channels, and back.

use crate::dynamic::call::{Answer, Call};
use crate::dynamic::ops::shape::{gather_strided, strides};

/// Words: the block's side, whether channels come first among the parts of one, whether channels
/// become blocks (else blocks channels).
fn space<T: Copy>(call: &mut Call) -> Answer {
    let (side, channels_first) = (call.words.size(), call.words.flag());
    let to_space = call.words.flag();
    let data = call.tensor(0)?;
    let (n, c, h, w) = match data.dims[..] {
        [n, c, h, w] => (n, c, h, w),
        _ => return Err("its input is no batch of images".to_string()),
    };
    let square = side * side;
    let fits = match to_space {
        true => c % square == 0,
        false => h % side == 0 && w % side == 0,
    };
    if side == 0 || !fits {
        return Err("its input cannot be cut into blocks".to_string());
    }
    // Six axes, and the order in which the result has them.
    let (parts, order, dims) = if to_space {
        let c = c / square;
        let dims = vec![n, c, h * side, w * side];
        match channels_first {
            true => ([n, c, side, side, h, w], [0, 1, 4, 2, 5, 3], dims),
            false => ([n, side, side, c, h, w], [0, 3, 4, 1, 5, 2], dims),
        }
    } else {
        let (h, w) = (h / side, w / side);
        let dims = vec![n, c * square, h, w];
        let parts = [n, c, h, side, w, side];
        match channels_first {
            true => (parts, [0, 1, 3, 5, 2, 4], dims),
            false => (parts, [0, 3, 5, 1, 2, 4], dims),
        }
    };
    let own = strides(&parts);
    let steps: Vec<usize> = order.iter().map(|&k| own[k]).collect();
    let mut out = call.room::<T>(order.iter().map(|&k| parts[k]).collect())?;
    gather_strided(data.items::<T>(), 0, &steps, &mut out);
    call.set_tensor(0, out.reshaped(dims));
    Ok(())
}

export!("space", space, u8 u16 u32 u64);
