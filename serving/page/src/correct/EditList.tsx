import type { ReactElement } from "react";

import { moment } from "../parts/words";
import type { RecordedEdit } from "../service/datasets";
import { editInWords } from "./history";

const SHOWN = 50;

/** Who changed what, the newest first. */
export function EditList({ edits }: { edits: RecordedEdit[] }): ReactElement {
  const newest = edits.slice(-SHOWN).reverse();
  return (
    <section className="panel" aria-labelledby="edits-title">
      <h2 id="edits-title">
        Changes <span className="hint">{edits.length}</span>
      </h2>
      {edits.length === 0 && <p className="hint">No person has changed this image. All objects are the model's.</p>}
      <ol className="list changes" tabIndex={0} aria-labelledby="edits-title">
        {newest.map((one) => (
          <li key={one.number}>
            <span>
              {one.number}: {one.who} {editInWords(one.edit)}
              <span className="hint"> {moment(one.when)}</span>
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}
