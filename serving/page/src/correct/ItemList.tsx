import type { ReactElement } from "react";

import { sizeOf } from "../answer/ImageList";
import { Busy } from "../parts/Busy";
import { Notice } from "../parts/Notice";
import { goTo, routeTo } from "../parts/route";
import { useAction } from "../parts/useAction";
import { useLoaded } from "../parts/useLoaded";
import { plural } from "../parts/words";
import type { ItemStatus } from "../service/datasets";
import { getItems, getNext } from "../service/datasets";
import { Refusal } from "../service/refusal";
import { AddItem } from "./AddItem";
import { DeleteDataSet } from "./DeleteDataSet";

/** The images of a data set. */
export function ItemList({ name }: { name: string }): ReactElement {
  const items = useLoaded(name, () => getItems(name));
  const next = useAction();
  const goNext = (): void =>
    void next.run("Looking for the next image", async () => {
      const id = await getNext(name);
      if (id === null) throw new Refusal("Every image of this data set is finished.", null, 0);
      goTo("correct", name, id);
    });
  return (
    <div className="correct">
      <h1>
        <a href={routeTo("correct")}>Data sets</a> / {name}
      </h1>
      {items.refusal && <Notice refusal={items.refusal} onRetry={items.reload} />}
      {items.value === null && items.refusal === null && <Busy label="Loading the images" />}
      {items.value?.length === 0 && <p>No images yet. Add one below.</p>}
      {items.value !== null && items.value.length > 0 && (
        <>
          <button type="button" className="main" onClick={goNext} disabled={next.busy !== null}>
            Next image: the least certain first
          </button>
          {next.refusal && <Notice refusal={next.refusal} onRetry={next.retry} />}
          <ul className="cards">
            {items.value.map((item) => (
              <ItemCard key={item.id} name={name} item={item} />
            ))}
          </ul>
        </>
      )}
      <AddItem name={name} onAdded={items.reload} />
      <DeleteDataSet name={name} />
    </div>
  );
}

function ItemCard({ name, item }: { name: string; item: ItemStatus }): ReactElement {
  const finished = Object.keys(item.finished).length;
  return (
    <li className="panel">
      <h2>
        <a href={routeTo("correct", name, item.id)}>{item.name}</a>
      </h2>
      <p>
        {plural(item.objects, "object")},{" "}
        {finished > 0 ? plural(finished, "finished region") : "nothing finished yet"}
      </p>
      <p className="hint">
        {sizeOf({ axes: item.axes, rgb: false })}; {item.split === "val" ? "validates" : "trains"}
        {item.group !== null && `, group ${item.group}`}
        {item.model !== null && `; objects of ${item.model.name}`}
        {item.least_certain !== null && `; least certain object ${item.least_certain.toFixed(2)}`}
      </p>
    </li>
  );
}
