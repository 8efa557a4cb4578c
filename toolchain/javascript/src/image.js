// Pixels of a canvas as a graph's input: resize, normalise, lay out.

import { InputError } from "./errors.js";
import { ARRAYS, tensor } from "./tensor.js";

/** See index.d.ts. */
export function fromImageData(
  image,
  { size = [image.height, image.width], channels = 3, scale = 1 / 255, mean = 0, std = 1, layout = "NCHW", dtype = "float32" } = {},
) {
  const [height, width = height] = [size].flat();
  const isFirst = layout === "NCHW";
  const isRight =
    height > 0 && width > 0 && /^[13]$/.test(channels) && /^NCHW|NHWC$/.test(layout) && /^(u?int(8|16|32)|float(32|64))$/.test(dtype);
  if (!isRight) throw new InputError(`an image cannot become ${[size, channels, layout, dtype].join(" ")}`);
  const [means, stds] = [mean, std].map((values) => {
    const list = [values].flat();
    if (list.length !== 1 && list.length !== channels) throw new InputError(`${list.length} values for ${channels} channels`);
    return (channel) => list[channel] ?? list[0];
  });
  const data = new ARRAYS[dtype](channels * height * width);
  for (let channel = 0; channel < channels; channel++) {
    const plane = resize(resize(pixels(image, channels, channel), image.width, width), image.height, height);
    plane.forEach((pixel, i) => {
      const value = (pixel * scale - means(channel)) / stds(channel);
      data[isFirst ? channel * plane.length + i : i * channels + channel] = /int/.test(dtype) ? Math.round(value) : value;
    });
  }
  return tensor(data, isFirst ? [1, channels, height, width] : [1, height, width, channels], dtype);
}

/** A colour of all pixels, or the luma of ITU-R 601. What is transparent is left aside. */
const pixels = ({ data, width, height }, channels, channel) =>
  Float64Array.from({ length: width * height }, (_, i) => {
    const [red, green, blue] = data.slice(4 * i, 4 * i + 3);
    return channels > 1 ? data[4 * i + channel] : Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  });

/**
 * Lines of `from` pixels as lines of `to`, turned: twice, it is upright again.
 *
 * Bilinear, and where it shrinks, over all pixels that fall into a new one; as Pillow's BILINEAR.
 */
function resize(plane, from, to) {
  const lines = plane.length / from;
  const turned = new Float64Array(lines * to);
  const step = from / to;
  const reach = Math.max(1, step);
  for (let x = 0; x < to; x++) {
    const centre = (x + 0.5) * step;
    for (let y = 0; y < lines; y++) {
      let sum = 0;
      let weights = 0;
      for (let i = Math.max(0, Math.floor(centre - reach)); i < Math.min(from, centre + reach); i++) {
        const weight = Math.max(0, 1 - Math.abs(i + 0.5 - centre) / reach);
        weights += weight;
        sum += weight * plane[y * from + i];
      }
      turned[x * lines + y] = Math.round(sum / weights);
    }
  }
  return turned;
}
