import { expect, test } from "vitest";

import { labelColour, pixelOf } from "./colours";
import type { LabelStyle } from "./labelMessages";
import { scalesOf } from "./levels";
import { paintLabels } from "./outlines";
import { labelAt, sampleLabels, UNKNOWN } from "./sampling";
import type { LabelTile } from "./sampling";

const TILE = 4;
const STYLE: LabelStyle = { mode: "outlines", opacity: 1, lineWidth: 1, selected: [] };

/** Cut a label image into tiles. */
function tilesOf(rows: string[]): {
  scales: ReturnType<typeof scalesOf>;
  at: (level: number, column: number, row: number) => LabelTile;
} {
  const [width, height] = [rows[0]!.length, rows.length];
  return {
    scales: scalesOf([{ width, height }], TILE),
    at: (_level, column, row) => {
      const tileWidth = Math.min(TILE, width - column * TILE);
      const tileRows = rows.slice(row * TILE, (row + 1) * TILE);
      const text = tileRows.map((line) => line.slice(column * TILE, column * TILE + tileWidth)).join("");
      return { width: tileWidth, labels: Uint32Array.from(text, Number) };
    },
  };
}

function painted(labels: Uint32Array, width: number, style = STYLE, colours: Uint32Array | null = null): string[] {
  const height = labels.length / width;
  const pixels = new Uint32Array(labels.length);
  paintLabels(pixels, labels, width, height, style, colours);
  return Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => (pixels[y * width + x] === 0 ? "." : "#")).join(""),
  );
}

const IMAGE = ["........", ".111111.", ".111111.", ".111111.", ".111111.", ".111111.", "........", "........"].map(
  (line) => line.replaceAll(".", "0"),
);

test("an object over four tiles is outlined without a line along the borders of tiles", () => {
  const { scales, at } = tilesOf(IMAGE);
  const labels = new Uint32Array(64);
  sampleLabels(labels, { x: 0, y: 0, step: 1, width: 8, height: 8 }, scales, 0, TILE, at);
  expect(painted(labels, 8)).toEqual([
    "........",
    ".######.",
    ".#....#.",
    ".#....#.",
    ".#....#.",
    ".######.",
    "........",
    "........",
  ]);
});

test("no line is drawn towards a tile that is missing", () => {
  const { scales, at } = tilesOf(IMAGE);
  const labels = new Uint32Array(64);
  sampleLabels(labels, { x: 0, y: 0, step: 1, width: 8, height: 8 }, scales, 0, TILE, (level, column, row) =>
    column === 1 ? undefined : at(level, column, row),
  );
  expect(labels[4]).toBe(UNKNOWN);
  expect(painted(labels, 8)).toEqual([
    "........",
    ".###....",
    ".#......",
    ".#......",
    ".#......",
    ".###....",
    "........",
    "........",
  ]);
});

test("enlarged, the outline keeps its width in pixels of the screen", () => {
  const { scales, at } = tilesOf(["0000", "0110", "0110", "0000"]);
  const labels = new Uint32Array(256);
  sampleLabels(labels, { x: 0, y: 0, step: 0.25, width: 16, height: 16 }, scales, 0, TILE, at);
  const lines = painted(labels, 16);
  expect(lines[4]).toBe("....########....");
  expect(lines[5]).toBe("....#......#....");
});

test("objects that touch have a line each", () => {
  expect(painted(Uint32Array.from([1, 1, 1, 2, 2, 2]), 6)).toEqual(["..##.."]);
});

test("an object at the border of the image is closed there", () => {
  const { scales, at } = tilesOf(["11", "11"]);
  const labels = new Uint32Array(16);
  sampleLabels(labels, { x: -1, y: -1, step: 1, width: 4, height: 4 }, scales, 0, TILE, at);
  expect(painted(labels, 4)).toEqual(["....", ".##.", ".##.", "...."]);
});

test("a table of colours goes before the colour of the number", () => {
  const labels = Uint32Array.from([1, 0, 2]);
  const pixels = new Uint32Array(3);
  paintLabels(pixels, labels, 3, 1, STYLE, Uint32Array.from([0, 0xe69f00, 0]));
  expect([...pixels]).toEqual([pixelOf(0xe69f00, 1), 0, pixelOf(labelColour(2), 1)]);
});

test("a coarser tile stands in for a missing one", () => {
  const scales = scalesOf(
    [
      { width: 8, height: 8 },
      { width: 4, height: 4 },
    ],
    TILE,
  );
  const coarse = { width: 4, labels: Uint32Array.from({ length: 16 }, (_, place) => place) };
  expect(labelAt(5, 3, scales, 0, TILE, (level) => (level === 1 ? coarse : undefined))).toBe(6);
});
