import { expect, test } from "vitest";

import { binned, binOf, numericColumns } from "./bins";
import { sortedPlaces } from "./sorting";

const ROWS = [
  [1, 30, "dead"],
  [2, null, "mitotic"],
  [3, 4, null],
  [4, 30, "cell 10"],
  [5, 100, "cell 9"],
];

test("numbers are sorted by size, equal ones keep their order", () => {
  expect([...sortedPlaces(ROWS, { column: 1, descending: false })]).toEqual([2, 0, 3, 4, 1]);
});

test("missing values are last in both directions", () => {
  expect([...sortedPlaces(ROWS, { column: 1, descending: true })]).toEqual([4, 0, 3, 2, 1]);
  expect([...sortedPlaces(ROWS, { column: 2, descending: true })].at(-1)).toBe(2);
});

test("texts with numbers are sorted as people count", () => {
  expect([...sortedPlaces(ROWS, { column: 2, descending: false })].slice(0, 2)).toEqual([4, 3]);
});

test("bins cover all values, the largest in the last one", () => {
  const bins = binned(ROWS, 1, 4)!;
  expect(bins).toEqual({ low: 4, high: 100, counts: [1, 2, 0, 1] });
  expect(binOf(bins, 100)).toBe(3);
});

test("equal values are in one bin, and a column without numbers has none", () => {
  expect(
    binned(
      [
        [1, 7],
        [2, 7],
      ],
      1,
      3,
    )!.counts,
  ).toEqual([2, 0, 0]);
  expect(binned(ROWS, 2, 4)).toBeNull();
  expect(numericColumns(["label", "area", "class"], ROWS)).toEqual([1]);
});
