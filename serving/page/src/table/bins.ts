import type { Value } from "../service/contract";

export interface Bins {
  low: number;
  high: number;
  counts: number[];
}

/** Return the columns with numbers in them, except the label, which counts nothing. */
export function numericColumns(columns: string[], rows: Value[][]): number[] {
  return columns
    .map((_, column) => column)
    .filter((column) => column > 0 && rows.some((row) => typeof row[column] === "number"))
    .filter((column) => rows.every((row) => row[column] === null || typeof row[column] === "number"));
}

/** Count the values of a column in bins of equal width; null if there are none. */
export function binned(rows: Value[][], column: number, count: number): Bins | null {
  let [low, high] = [Infinity, -Infinity];
  for (const row of rows) {
    const value = row[column];
    if (typeof value !== "number") continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  const bins: Bins = { low, high, counts: new Array<number>(count).fill(0) };
  for (const row of rows) {
    const value = row[column];
    if (typeof value === "number") bins.counts[binOf(bins, value)]! += 1;
  }
  return bins;
}

export function binOf({ low, high, counts }: Bins, value: number): number {
  const part = high > low ? (value - low) / (high - low) : 0;
  return Math.min(counts.length - 1, Math.floor(part * counts.length));
}
