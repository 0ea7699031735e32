import { expect, test } from "vitest";

import { greyTiff } from "./tiff";

test("the pixels follow the header, at the place that it names", async () => {
  const bytes = new DataView(await greyTiff(Uint8Array.of(1, 2, 3, 4, 5, 6), 3, 2).arrayBuffer());
  const entries = bytes.getUint16(8, true);
  const values = new Map(
    Array.from({ length: entries }, (_, place) => {
      const at = 10 + 12 * place;
      const short = bytes.getUint16(at + 2, true) === 3;
      return [bytes.getUint16(at, true), short ? bytes.getUint16(at + 8, true) : bytes.getUint32(at + 8, true)];
    }),
  );
  expect([values.get(256), values.get(257), values.get(279)]).toEqual([3, 2, 6]);
  expect(bytes.getUint8(values.get(273)!)).toBe(1);
  expect(bytes.byteLength).toBe(values.get(273)! + 6);
});
