import type { ReactElement } from "react";

import type { Objects } from "../service/contract";
import { Histogram } from "../table/Histogram";
import { ObjectTable } from "../table/ObjectTable";

interface Props {
  title: string;
  objects: Objects;
  selected: number[];
  onSelect: (row: number) => void;
}

/** The objects in numbers: a table and a histogram. */
export function ObjectPanel({ title, objects, selected, onSelect }: Props): ReactElement {
  return (
    <section className="panel objects" aria-labelledby="table-title">
      <h2 id="table-title">
        Objects <span className="hint">{title}</span>
      </h2>
      <div className="objects-parts">
        <ObjectTable objects={objects} selected={selected} onSelect={onSelect} />
        <Histogram objects={objects} selected={selected[0] ?? null} />
      </div>
    </section>
  );
}
