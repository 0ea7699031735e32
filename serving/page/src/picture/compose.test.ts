import { expect, test } from "vitest";

import { brightness, compose } from "./compose";

const tile = (pixels: number[], low = 0, high = 255) => ({
  width: pixels.length,
  height: 1,
  pixels: Uint8Array.from(pixels),
  low,
  high,
});

test("channels are added in their colours, and stop at white", () => {
  const layers = [
    { tile: tile([255, 128, 0]), appearance: { colour: 0xff0000, low: 0, high: 255 } },
    { tile: tile([255, 0, 0]), appearance: { colour: 0xff8000, low: 0, high: 255 } },
  ];
  expect([...compose(layers, 3, 1)]).toEqual([255, 128, 0, 255, 128, 0, 0, 255, 0, 0, 0, 255]);
});

test("without a visible channel the tile is black, not transparent", () => {
  expect([...compose([], 1, 1)]).toEqual([0, 0, 0, 255]);
});

test("a tile with the wanted limits keeps its values", () => {
  expect([...brightness({ low: 100, high: 4000 }, { low: 100, high: 4000 })]).toEqual([...Array(256).keys()]);
});

test("a tile with other limits is stretched to the wanted ones", () => {
  const table = brightness({ low: 0, high: 1000 }, { low: 250, high: 750 });
  expect([table[0], table[63], table[191], table[255]]).toEqual([0, 0, 255, 255]);
  expect(table[128]).toBeCloseTo(128, -1);
});
