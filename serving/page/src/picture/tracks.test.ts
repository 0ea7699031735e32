import { expect, test } from "vitest";

import { tracksOf } from "./tracks";

test("tracks are read from the table of an answer", () => {
  const columns = ["label", "t", "y", "x", "area", "parent", "confidence"];
  const rows = [
    [1, 0, 10, 20, 50, null, null],
    [1, 1, 11, 21, 50, null, null],
    [2, 2, 12, 22, 40, 1, 0.9],
  ];
  const found = tracksOf({ columns, rows })!;
  expect(found.points.get(1)).toEqual([
    { t: 0, x: 20, y: 10 },
    { t: 1, x: 21, y: 11 },
  ]);
  expect(found.parents.get(2)).toBe(1);
  expect(tracksOf({ columns: ["label", "y", "x", "area"], rows: [] })).toBeNull();
});
