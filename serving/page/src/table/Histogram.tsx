import type { ReactElement } from "react";
import { useId, useMemo, useState } from "react";

import type { Objects } from "../service/contract";
import { binned, binOf, numericColumns } from "./bins";
import { columnTitle, formatValue } from "./format";

const BINS = 32;
// Shown first, for the places of objects tell little.
const TELLING = ["area", "confidence"];
const [WIDTH, HEIGHT] = [320, 96];

interface Props {
  objects: Objects;
  selected: number | null;
}

/** How the values of a column are spread, with the selected object marked. */
export function Histogram({ objects, selected }: Props): ReactElement | null {
  const { columns, rows } = objects;
  const id = useId();
  const numeric = useMemo(() => numericColumns(columns, rows), [columns, rows]);
  const telling = TELLING.map((name) => columns.indexOf(name)).find((column) => numeric.includes(column));
  const [chosen, setChosen] = useState<number | null>(null);
  const column = chosen !== null && numeric.includes(chosen) ? chosen : (telling ?? numeric[0] ?? -1);
  const bins = useMemo(() => binned(rows, column, BINS), [rows, column]);
  if (bins === null) return null;
  const most = Math.max(...bins.counts);
  const value = selected === null ? undefined : rows.find((row) => row[0] === selected)?.[column];
  const marked = typeof value === "number" ? value : null;
  return (
    <figure className="histogram">
      <label htmlFor={id}>Histogram of</label>{" "}
      <select id={id} value={column} onChange={(event) => setChosen(Number(event.target.value))}>
        {numeric.map((place) => (
          <option key={place} value={place}>
            {columnTitle(columns[place]!)}
          </option>
        ))}
      </select>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={describe(columns[column]!, bins.low, bins.high, most)}
      >
        {bins.counts.map((count, bin) => (
          <rect
            key={bin}
            className={marked !== null && binOf(bins, marked) === bin ? "bar marked" : "bar"}
            x={(bin * WIDTH) / BINS + 0.5}
            width={WIDTH / BINS - 1}
            y={HEIGHT - (count / most) * HEIGHT}
            height={(count / most) * HEIGHT}
          />
        ))}
      </svg>
      <figcaption>
        <span>{formatValue(bins.low)}</span>
        <span>{marked === null ? `most in one bar: ${most}` : `object ${selected}: ${formatValue(marked)}`}</span>
        <span>{formatValue(bins.high)}</span>
      </figcaption>
    </figure>
  );
}

function describe(column: string, low: number, high: number, most: number): string {
  const range = `from ${formatValue(low)} to ${formatValue(high)}`;
  return `Histogram of ${columnTitle(column)} ${range}, at most ${most} objects in a bar`;
}
