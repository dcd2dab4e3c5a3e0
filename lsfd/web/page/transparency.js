/** What is special about pictures with transparent parts. */

/** As far, in pixels, from what can be seen are hidden colours replaced. */
const REACH = 8;

/** Whether any pixel of RGBA data is not opaque. */
export function isTransparent({ data }) {
  for (let alpha = 3; alpha < data.length; alpha += 4) if (data[alpha] < 255) return true;
  return false;
}

/**
 * Give fully transparent pixels the mean colour of their nearest visible neighbours, in place.
 *
 * A browser keeps black there. A network that looks at surroundings would carry that into the
 * visible edge as a dark fringe.
 *
 * @param {ImageData} picture RGBA
 */
export function spreadColours({ data, width, height }) {
  const seen = new Uint8Array(width * height);
  for (let pixel = 0; pixel < seen.length; pixel++) seen[pixel] = data[4 * pixel + 3] > 0 ? 1 : 0;
  for (let step = 0; step < REACH; step++) {
    const found = [];
    for (let pixel = 0; pixel < seen.length; pixel++) {
      const colour = seen[pixel] ? null : meanOfSeen(data, seen, pixel, width, height);
      if (colour) found.push([pixel, colour]);
    }
    for (const [pixel, colour] of found) {
      data.set(colour, 4 * pixel);
      seen[pixel] = 1;
    }
  }
}

/** Return the mean colour of the up to eight visible neighbours of a pixel; null without any. */
function meanOfSeen(data, seen, pixel, width, height) {
  const column = pixel % width;
  const row = (pixel - column) / width;
  const sum = [0, 0, 0];
  let count = 0;
  for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, height - 1); y++) {
    for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, width - 1); x++) {
      const neighbour = y * width + x;
      if (!seen[neighbour]) continue;
      count++;
      for (let band = 0; band < 3; band++) sum[band] += data[4 * neighbour + band];
    }
  }
  return count ? sum.map((value) => Math.round(value / count)) : null;
}

/** Give pixels the transparency of other pixels, in place. */
export function copyAlpha(from, to) {
  for (let alpha = 3; alpha < to.length; alpha += 4) to[alpha] = from[alpha];
}
