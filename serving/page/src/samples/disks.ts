/** A made image: blurred disks on a dark ground, as stained nuclei look. */

export const SIZE = 512;
const COUNT = 60;

/** Draw the image; the same seed gives the same pixels. */
export function blurredDisks(seed: number): Uint8Array {
  const random = generator(seed);
  const intensity = new Float32Array(SIZE * SIZE).fill(14);
  const placed: { x: number; y: number; radius: number }[] = [];
  for (let tries = 0; placed.length < COUNT && tries < 20 * COUNT; tries++) {
    const disk = { x: random() * SIZE, y: random() * SIZE, radius: 11 + 7 * random() };
    const touches = placed.some(
      (other) => Math.hypot(other.x - disk.x, other.y - disk.y) < other.radius + disk.radius + 1,
    );
    if (touches) continue;
    placed.push(disk);
    drawDisk(intensity, disk, 90 + 110 * random(), 0.75 + 0.25 * random(), Math.PI * random());
  }
  return Uint8Array.from(intensity, (value) => Math.max(0, Math.min(255, value + 10 * (random() + random() - 1))));
}

interface Disk {
  x: number;
  y: number;
  radius: number;
}

function drawDisk(
  intensity: Float32Array,
  { x, y, radius }: Disk,
  brightness: number,
  flat: number,
  angle: number,
): void {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const reach = Math.ceil(radius + 5);
  for (let row = Math.max(0, Math.floor(y - reach)); row < Math.min(SIZE, y + reach); row++) {
    for (let column = Math.max(0, Math.floor(x - reach)); column < Math.min(SIZE, x + reach); column++) {
      const along = (column - x) * cos + (row - y) * sin;
      const across = ((row - y) * cos - (column - x) * sin) / flat;
      // A border that falls off over about three pixels, as optics blur it.
      intensity[row * SIZE + column]! += brightness / (1 + Math.exp((Math.hypot(along, across) - radius) / 0.9));
    }
  }
}

/** Return a generator of numbers from 0 to 1 (mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
