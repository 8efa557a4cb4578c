// Pixels of a canvas as a graph's input: resize, normalise, lay out.

import { InputError } from "./errors.js";
import { ARRAYS, tensor } from "./tensor.js";

/** See index.d.ts. */
export function fromImageData(image, options = {}) {
  const { size = [image.height, image.width], channels = 3, scale = 1 / 255, layout = "NCHW", dtype = "float32" } = options;
  const [height, width = height] = [size].flat();
  if (![height, width].every((extent) => Number.isInteger(extent) && extent > 0)) {
    throw new InputError(`size should be one or two numbers of pixels, not ${size}`);
  }
  const [mean, std] = [options.mean ?? 0, options.std ?? 1].map((values) => perChannel(values, channels));
  if (!["NCHW", "NHWC"].includes(layout)) throw new InputError(`layout should be "NCHW" or "NHWC", not ${layout}`);
  if (!/^(u?int(8|16|32)|float(32|64))$/.test(dtype)) throw new InputError(`an image cannot become ${dtype}`);
  const pixels = resize(planes(image, channels), image, { height, width });
  const data = new ARRAYS[dtype](channels * height * width);
  const isInteger = !dtype.startsWith("float");
  pixels.forEach((plane, c) =>
    plane.forEach((pixel, i) => {
      const value = (pixel * scale - mean[c]) / std[c];
      data[layout === "NCHW" ? c * plane.length + i : i * channels + c] = isInteger ? Math.round(value) : value;
    }),
  );
  const shape = layout === "NCHW" ? [1, channels, height, width] : [1, height, width, channels];
  return tensor(data, shape, dtype);
}

function perChannel(values, channels) {
  const list = [values].flat();
  if (list.length !== 1 && list.length !== channels) {
    throw new InputError(`${list.length} values for ${channels} channels`);
  }
  return Array.from({ length: channels }, (_, c) => list[c] ?? list[0]);
}

/** A plane per channel: red, green and blue, or the luma of ITU-R 601. What is transparent is left aside. */
function planes({ data, width, height }, channels) {
  if (channels !== 1 && channels !== 3) throw new InputError(`channels should be 1 or 3, not ${channels}`);
  const colours = [0, 1, 2].map((c) => Float64Array.from({ length: width * height }, (_, i) => data[4 * i + c]));
  if (channels === 3) return colours;
  const [red, green, blue] = colours;
  return [red.map((value, i) => Math.round(0.299 * value + 0.587 * green[i] + 0.114 * blue[i]))];
}

/** Bilinear, and where it shrinks, over all pixels that fall into a new one; as Pillow's BILINEAR. */
function resize(pixels, from, to) {
  const columns = weights(from.width, to.width);
  const rows = weights(from.height, to.height);
  return pixels.map((plane) => {
    const wide = new Float64Array(from.height * to.width);
    for (let y = 0; y < from.height; y++) {
      columns.forEach((column, x) => {
        wide[y * to.width + x] = Math.round(column.reduce((sum, [i, weight]) => sum + weight * plane[y * from.width + i], 0));
      });
    }
    const out = new Float64Array(to.height * to.width);
    rows.forEach((row, y) => {
      for (let x = 0; x < to.width; x++) {
        out[y * to.width + x] = Math.round(row.reduce((sum, [i, weight]) => sum + weight * wide[i * to.width + x], 0));
      }
    });
    return out;
  });
}

/** For every place on the new axis: the old places that it is made of, and their weights. */
function weights(from, to) {
  const step = from / to;
  const reach = Math.max(1, step);
  return Array.from({ length: to }, (_, x) => {
    const centre = (x + 0.5) * step;
    const found = [];
    for (let i = Math.max(0, Math.floor(centre - reach)); i < Math.min(from, centre + reach); i++) {
      const weight = 1 - Math.abs(i + 0.5 - centre) / reach;
      if (weight > 0) found.push([i, weight]);
    }
    const sum = found.reduce((total, [, weight]) => total + weight, 0);
    return found.map(([i, weight]) => [i, weight / sum]);
  });
}
