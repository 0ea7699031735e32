import type { ReactElement } from "react";

import type { Axes } from "../service/contract";
import type { Edit, Region } from "../service/datasets";

interface Props {
  axes: Axes;
  regions: (Region & { number: string })[];
  place: { t: number; z: number };
  onEdit: (edit: Edit) => void;
}

/** The finished regions: only they train and score. */
export function RegionPanel({ axes, regions, place, onEdit }: Props): ReactElement {
  return (
    <section className="panel" aria-labelledby="regions-title">
      <h2 id="regions-title">Finished regions</h2>
      <p className="hint">Only finished regions train a model. The rest of the image counts as unknown.</p>
      <button type="button" onClick={() => onEdit({ op: "finish", region: { ...place, outline: null } })}>
        All of this image is finished
      </button>
      <ul className="list">
        {regions.map((region) => (
          <li key={region.number}>
            <span className="grow">
              Region {region.number}
              {(axes.T ?? 1) > 1 && `, ${region.t === null ? "all frames" : `frame ${region.t + 1}`}`}
              {(axes.Z ?? 1) > 1 && `, ${region.z === null ? "all planes" : `plane ${region.z + 1}`}`}
            </span>
            <button
              type="button"
              className="quiet"
              aria-label={`Open again: region ${region.number}`}
              onClick={() => onEdit({ op: "reopen", region: Number(region.number) })}
            >
              Open again
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
