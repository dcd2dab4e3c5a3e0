/** Cutting a picture into tiles that overlap, so that the result has no seams. */

/** The smallest overlap, in input pixels: as far as bicubic interpolation looks. */
const BICUBIC_REACH = 2;

/** The side of the smallest tile that is chosen, without its surroundings. */
const SMALLEST = 16;

/**
 * Cut a picture into tiles of about equal size; into one, if it is small enough.
 *
 * @param {number} width of the picture, in pixels
 * @param {number} height of the picture
 * @param {{overlap: number, multiple: number, tile_pixels: number, tile?: number}} model pixels of
 *   surroundings, a multiple of what the sides of a network's input must be multiples of; how many
 *   pixels a tile may have with its surroundings, or the side that it shall have without them
 * @returns {{inner: Rect, outer: Rect}[]} each tile without and with its surroundings;
 *   a Rect is {x, y, width, height} in pixels of the picture
 */
export function planTiles(width, height, { overlap, multiple, tile_pixels: pixels, tile: wanted }) {
  const around = Math.max(overlap, roundUp(BICUBIC_REACH, multiple));
  const tile = roundUp(wanted ?? fittingTile(width, height, around, pixels), multiple);
  const tiles = [];
  for (const [top, bottom, outerTop, outerBottom] of spans(height, tile, around, multiple)) {
    for (const [left, right, outerLeft, outerRight] of spans(width, tile, around, multiple)) {
      tiles.push({
        inner: { x: left, y: top, width: right - left, height: bottom - top },
        outer: {
          x: outerLeft,
          y: outerTop,
          width: outerRight - outerLeft,
          height: outerBottom - outerTop,
        },
      });
    }
  }
  return tiles;
}

/** Return the side of the largest square tile that takes so many pixels with surroundings. */
function fittingTile(width, height, around, pixels) {
  if (width * height <= pixels) return Math.max(width, height);
  // What is at the edge of a picture, or is as wide as it, has less around it.
  const shorter = Math.min(width, height);
  let side = Math.floor(Math.sqrt(pixels)) - 2 * around;
  if (side + 2 * around > shorter) side = Math.floor(pixels / shorter) - 2 * around;
  return Math.max(side, SMALLEST);
}

/** Cut a side: both ends of each tile, without and with surroundings. */
function spans(length, tile, around, multiple) {
  const step = roundUp(length / Math.ceil(length / tile), multiple);
  const found = [];
  for (let begin = 0; begin < length; begin += step) {
    const end = Math.min(begin + step, length);
    found.push([begin, end, Math.max(begin - around, 0), Math.min(end + around, length)]);
  }
  return found;
}

/** Return the next multiple. */
export function roundUp(value, multiple) {
  return Math.ceil(value / multiple) * multiple;
}

/**
 * Cut a rectangle out of RGBA pixels.
 *
 * @param {{data: Uint8ClampedArray, width: number}} picture
 * @param {Rect} rect
 * @returns {ImageData}
 */
export function cut(picture, { x, y, width, height }) {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let row = 0; row < height; row++) {
    const start = 4 * ((y + row) * picture.width + x);
    data.set(picture.data.subarray(start, start + 4 * width), 4 * row * width);
  }
  return new ImageData(data, width, height);
}

/** Return where a tile without surroundings lies in the enlarged tile with surroundings. */
export function innerOfEnlarged({ inner, outer }, scale) {
  return {
    x: (inner.x - outer.x) * scale,
    y: (inner.y - outer.y) * scale,
    width: inner.width * scale,
    height: inner.height * scale,
  };
}
