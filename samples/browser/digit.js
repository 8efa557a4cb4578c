// From ink on paper to what the network was trained on: scikit-learn's digits are pictures of 32 by 32
// dots, the digit as large as fits, in which every block of 4 by 4 dots was counted. (Alpaydin and Kaynak,
// "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.)

export const SIZE = 8;

/** Dots per side of the picture in which the digit is as large as fits. */
const FRAME = 32;
/** How much of the frame a digit may fill from side to side: those of the data set leave a margin there. */
const WIDEST = 26;
/** Ink below this share counts as none: the blurred edge of a picture. */
const FAINT = 0.15;

/**
 * The digit as the network takes it.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} picture Ink is its alpha channel.
 * @returns {Float32Array | null} SIZE by SIZE shares of ink in 0..1, row by row; null without any ink.
 */
export function prepare({ width, height, data }) {
  const ink = (x, y) => {
    const share = data[4 * (y * width + x) + 3] / 255;
    return share < FAINT ? 0 : share;
  };
  const box = extent(width, height, ink);
  if (box === null) return null;
  const { left, top, right, bottom } = box;
  // Dots per pixel, so that the digit touches two sides of the frame.
  const scale = Math.min(FRAME / (bottom - top), WIDEST / (right - left));
  const across = FRAME / SIZE / scale; // pixels per block
  const fromX = (left + right) / 2 - (SIZE * across) / 2;
  const fromY = (top + bottom) / 2 - (SIZE * across) / 2;
  const blocks = new Float32Array(SIZE * SIZE);
  for (let row = 0; row < SIZE; row++) {
    for (let column = 0; column < SIZE; column++) {
      blocks[row * SIZE + column] = mean(
        ink, width, height, fromX + column * across, fromY + row * across, across,
      );
    }
  }
  return blocks;
}

/** The smallest rectangle that holds all ink, or null. */
function extent(width, height, ink) {
  let left = width, top = height, right = 0, bottom = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink(x, y) === 0) continue;
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y + 1);
    }
  }
  return right > left ? { left, top, right, bottom } : null;
}

/** The mean ink of a square of `side` pixels, of which the outermost count in part; none is outside. */
function mean(ink, width, height, left, top, side) {
  let sum = 0;
  for (let y = Math.max(0, Math.floor(top)); y < Math.min(height, top + side); y++) {
    const tall = Math.min(y + 1, top + side) - Math.max(y, top);
    for (let x = Math.max(0, Math.floor(left)); x < Math.min(width, left + side); x++) {
      sum += ink(x, y) * tall * (Math.min(x + 1, left + side) - Math.max(x, left));
    }
  }
  return sum / (side * side);
}
