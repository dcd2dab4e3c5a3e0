/** Numbers in words that people read. */

/** Write a number with three digits, or all that stand before the point. */
export function number(value) {
  return value.toLocaleString(
    "en",
    value < 100 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 },
  );
}

export function size(width, height) {
  return `${width} × ${height}`;
}
