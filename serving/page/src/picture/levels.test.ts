import { expect, test } from "vitest";

import { levelFor, scalesOf } from "./levels";

test("levels that were rounded to whole pixels keep their whole factor", () => {
  const scales = scalesOf(
    [
      { width: 1001, height: 700 },
      { width: 501, height: 350 },
      { width: 251, height: 175 },
    ],
    256,
  );
  expect(scales.map((one) => one.factor)).toEqual([1, 2, 4]);
  expect(scales.map((one) => one.columns)).toEqual([4, 2, 1]);
});

test("the level is fine enough for the screen, and not finer", () => {
  const scales = scalesOf(
    [4096, 2048, 1024, 512].map((size) => ({ width: size, height: size })),
    256,
  );
  expect([0.1, 1, 2, 3, 100].map((step) => levelFor(scales, step))).toEqual([0, 0, 1, 2, 3]);
});
