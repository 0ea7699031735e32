import type { ReactElement } from "react";

import { Busy } from "../parts/Busy";
import { Notice } from "../parts/Notice";
import { useLoaded } from "../parts/useLoaded";
import { openItemImage } from "../service/datasets";
import { DataSetList } from "./DataSetList";
import { Editor } from "./Editor";
import { ItemList } from "./ItemList";
import { useEdits } from "./useEdits";

interface Props {
  /** The name of the person. */
  person: string;
  name: string | undefined;
  item: string | undefined;
}

/** Data sets, the images of one, and one of these. */
export function CorrectPage({ person, name, item }: Props): ReactElement {
  if (name === undefined) return <DataSetList />;
  if (item === undefined) return <ItemList key={name} name={name} />;
  return <ItemPage key={`${name}/${item}`} person={person} name={name} id={item} />;
}

function ItemPage({ person, name, id }: { person: string; name: string; id: string }): ReactElement {
  const edits = useEdits(name, id);
  const image = useLoaded(`${name}/${id} image`, () => openItemImage(name, id));
  const item = edits.item;
  if (item.value !== null && image.value !== null)
    return <Editor name={name} item={item.value} image={image.value} edits={edits} person={person} />;
  const { refusal, reload } = item.refusal === null ? image : item;
  return (
    <div className="correct">
      <h1>{name}</h1>
      {refusal === null ? <Busy label="Loading the image" /> : <Notice refusal={refusal} onRetry={reload} />}
    </div>
  );
}
