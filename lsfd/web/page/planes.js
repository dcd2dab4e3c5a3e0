/** Between the pixels of a picture and the numbers that a network works on. */

import { roundUp } from "./tiles.js";

/**
 * Return a picture's colours as planes, reflected at the right and the bottom until both sides
 * are multiples of what the network takes.
 *
 * @param {ImageData} picture RGBA
 * @param {number} multiple
 * @returns {{data: Float32Array, width: number, height: number}} 3 x height x width, in 0..1
 */
export function toPlanes(picture, multiple) {
  const width = roundUp(picture.width, multiple);
  const height = roundUp(picture.height, multiple);
  const size = width * height;
  const data = new Float32Array(3 * size);
  for (let y = 0; y < height; y++) {
    const row = reflected(y, picture.height) * picture.width;
    for (let x = 0; x < width; x++) {
      const from = 4 * (row + reflected(x, picture.width));
      const to = y * width + x;
      data[to] = picture.data[from] / 255;
      data[to + size] = picture.data[from + 1] / 255;
      data[to + 2 * size] = picture.data[from + 2] / 255;
    }
  }
  return { data, width, height };
}

/** Return the place inside that a place beyond the end is a reflection of; the end is not doubled. */
function reflected(place, length) {
  if (place < length) return place;
  if (length === 1) return 0;
  const period = 2 * length - 2;
  const within = place % period;
  return within < length ? within : period - within;
}

/**
 * Return a rectangle of a network's output as opaque pixels, rounded half up and clipped.
 *
 * @param {Float32Array} planes 3 x height x width, about 0..1
 * @param {number} width of the planes
 * @param {number} height of the planes
 * @param {Rect} rect
 * @returns {Uint8ClampedArray} RGBA
 */
export function toPixels(planes, width, height, rect) {
  const size = width * height;
  const pixels = new Uint8ClampedArray(4 * rect.width * rect.height);
  let to = 0;
  for (let y = rect.y; y < rect.y + rect.height; y++) {
    for (let x = rect.x; x < rect.x + rect.width; x++) {
      for (let from = y * width + x; from < 3 * size; from += size) {
        if (!Number.isFinite(planes[from])) {
          throw new Error("its output holds NaN or infinity, so its weights are damaged");
        }
        pixels[to++] = Math.floor(planes[from] * 255 + 0.5);
      }
      pixels[to++] = 255;
    }
  }
  return pixels;
}
