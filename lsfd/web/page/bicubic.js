/**
 * Bicubic interpolation as the benchmark has it: Keys' kernel with a = -0.5, borders mirrored,
 * height before width, rounded to 8 bits after each of the two, as MATLAB's `imresize` does.
 */

/** Neighbours that a new sample is made of. */
const TAPS = 4;

/**
 * Enlarge a picture by an integer factor.
 *
 * @param {ImageData} picture RGBA
 * @param {number} scale
 * @returns {{data: Uint8ClampedArray, width: number, height: number}} RGBA
 */
export function enlargeBicubic({ data, width, height }, scale) {
  const line = 4 * width;
  const tall = new Uint8ClampedArray(line * height * scale);
  enlargeRow(data, tall, height, line, scale);
  const larger = new Uint8ClampedArray(tall.length * scale);
  const columns = contributions(width, scale);
  for (let row = 0; row < height * scale; row++) {
    const target = larger.subarray(line * scale * row, line * scale * (row + 1));
    enlargeRow(tall.subarray(line * row, line * (row + 1)), target, width, 4, scale, columns);
  }
  return { data: larger, width: width * scale, height: height * scale };
}

/** Enlarge a row of `length` samples, each of `size` values. */
function enlargeRow(source, target, length, size, scale, taps = contributions(length, scale)) {
  for (let sample = 0; sample < length * scale; sample++) {
    const first = sample * TAPS;
    for (let value = 0; value < size; value++) {
      let sum = 0;
      for (let tap = first; tap < first + TAPS; tap++) {
        sum += taps.weights[tap] * source[taps.places[tap] * size + value];
      }
      target[sample * size + value] = Math.floor(sum + 0.5);
    }
  }
}

/** Return which samples make each new one, and how much of each: TAPS entries for each. */
function contributions(length, scale) {
  const places = new Int32Array(length * scale * TAPS);
  const weights = new Float64Array(length * scale * TAPS);
  for (let sample = 0; sample < length * scale; sample++) {
    const center = (sample + 0.5) / scale - 0.5;
    const left = Math.floor(center) - 1;
    const first = sample * TAPS;
    let sum = 0;
    for (let tap = 0; tap < TAPS; tap++) {
      places[first + tap] = mirrored(left + tap, length);
      weights[first + tap] = cubic(center - (left + tap));
      sum += weights[first + tap];
    }
    for (let tap = 0; tap < TAPS; tap++) weights[first + tap] /= sum;
  }
  return { places, weights };
}

/** Return the place that a place outside mirrors; the samples at the ends are doubled. */
function mirrored(place, length) {
  const within = ((place % (2 * length)) + 2 * length) % (2 * length);
  return within < length ? within : 2 * length - 1 - within;
}

/** Keys' cubic convolution kernel with a = -0.5. */
function cubic(x) {
  const distance = Math.abs(x);
  if (distance <= 1) return 1.5 * distance ** 3 - 2.5 * distance ** 2 + 1;
  if (distance <= 2) return -0.5 * distance ** 3 + 2.5 * distance ** 2 - 4 * distance + 2;
  return 0;
}
