import type { ReactElement } from "react";
import { useEffect, useMemo, useState } from "react";

import { PlaceSliders } from "../answer/PlaceSliders";
import { classesOf, placeOf } from "../answer/objectIndex";
import { LabelPanel } from "../answer/LabelPanel";
import { ObjectPanel } from "../answer/ObjectPanel";
import { Notice } from "../parts/Notice";
import { goTo, routeTo } from "../parts/route";
import { useAction } from "../parts/useAction";
import { useLoaded } from "../parts/useLoaded";
import { plural } from "../parts/words";
import { ChannelPanel } from "../picture/ChannelPanel";
import type { LabelStyle } from "../picture/labelMessages";
import type { Gesture, Place } from "../picture/Picture";
import { Picture } from "../picture/Picture";
import { useChannels } from "../picture/useChannels";
import type { StoredImage } from "../service/contract";
import type { Edit, ItemStatus } from "../service/datasets";
import { getItemObjects, getNext, itemAddress } from "../service/datasets";
import { Refusal } from "../service/refusal";
import { ConflictNotice } from "./ConflictNotice";
import { EditList } from "./EditList";
import { stepsOf } from "./history";
import { RegionPanel } from "./RegionPanel";
import { SelectionPanel } from "./SelectionPanel";
import { Toolbar } from "./Toolbar";
import type { Tool } from "./tools";
import { editOf, gesturePainter, regionPainter, TOOLS } from "./tools";
import type { Edits } from "./useEdits";
import { useKeys } from "./useKeys";

interface Props {
  name: string;
  item: ItemStatus;
  image: StoredImage;
  edits: Edits;
  person: string;
}

const FIRST_STYLE: LabelStyle = { mode: "outlines", opacity: 1, lineWidth: 2, selected: [] };

/** One image of a data set with its objects, to correct them. */
export function Editor({ name, item, image, edits, person }: Props): ReactElement {
  const [place, setPlace] = useState({ t: 0, z: 0 });
  const [tool, setTool] = useState<Tool>("select");
  const [radius, setRadius] = useState(6);
  const [selected, setSelected] = useState<number[]>([]);
  const [centre, setCentre] = useState<Place | null>(null);
  const [gesture, setGesture] = useState<Gesture | null>(null);
  const [said, setSaid] = useState("");
  const [style, setStyle] = useState(FIRST_STYLE);
  const [visible, setVisible] = useState(true);
  const next = useAction();
  const channels = useChannels(image, place);
  const address = itemAddress(name, item.id);
  const { revision } = item;
  const objects = useLoaded(address, () => getItemObjects(name, item.id));
  const { reload } = objects;
  useEffect(() => reload(), [reload, revision]);

  const tiled = useMemo(() => ({ ...image, address: `/images/${image.id}` }), [image]);
  const regions = useMemo(() => Object.entries(item.finished).map(([number, region]) => ({ number, ...region })), [item]);
  const labels = useMemo(
    () =>
      visible
        ? { address: `${address}/labels`, levels: item.levels, tile: item.tile, ...place, revision }
        : null,
    [address, place, revision, visible],
  );
  const fullStyle = useMemo(() => ({ ...style, selected }), [style, selected]);
  const classes = useMemo(() => (objects.value === null ? null : classesOf(objects.value)), [objects.value]);
  const painters = useMemo(
    () => [regionPainter(regions, place, image.levels[0]!), ...(gesture === null ? [] : [gesturePainter(tool, gesture, radius)])],
    [regions, image, place, gesture, tool, radius],
  );
  // What is not stored yet has no number: it cannot be undone before.
  const steps = edits.waiting > 0 ? { undo: null, redo: null } : stepsOf(edits.recorded, person);
  const undo = steps.undo === null ? null : () => edits.save([{ op: "undo", edit: steps.undo! }]);
  const redo = steps.redo === null ? null : () => edits.save([{ op: "redo", edit: steps.redo! }]);

  const save = (edit: Edit): void => {
    edits.save([edit]);
    if (edit.op === "delete") setSelected([]);
  };
  const draw = (now: Gesture): void => {
    if (now.phase !== "release") {
      setGesture({ ...now });
      return;
    }
    setGesture(null);
    const edit = editOf(tool, now.points, place, selected, radius);
    setSaid(typeof edit === "string" ? edit : "");
    if (typeof edit !== "string") save(edit);
  };
  const pick = (label: number, _at: Place, several: boolean): void =>
    setSelected((before) => {
      if (label === 0) return several ? before : [];
      if (!several) return [label];
      return before.includes(label) ? before.filter((one) => one !== label) : [...before, label];
    });
  const selectRow = (row: number): void => {
    const values = objects.value?.rows[row];
    if (values === undefined) return;
    setSelected([Number(values[0])]);
    setCentre(placeOf(objects.value!, values));
  };
  const remove = selected.length === 0 ? null : () => save({ op: "delete", labels: selected });
  const goNext = (): void =>
    void next.run("Looking for the next image", async () => {
      const id = await getNext(name);
      if (id === null) throw new Refusal("Every image of this data set is finished.", null, 0);
      if (id === item.id)
        throw new Refusal("This is the next image: it is not finished yet.", "Mark what is correct as finished.", 0);
      goTo("correct", name, id);
    });
  useKeys({
    ...Object.fromEntries(TOOLS.map((one) => [one.key, () => setTool(one.tool)])),
    Delete: remove,
    "ctrl+z": undo,
    "ctrl+y": redo,
  });

  return (
    <div className="workspace">
      <div className="side ask">
        <SelectionPanel
          key={`${item.id} ${place.z}`}
          selected={selected}
          planes={item.axes.Z ?? 1}
          t={place.t}
          z={place.z}
          onEdit={save}
        />
        <RegionPanel axes={item.axes} regions={regions} place={place} onEdit={save} />
      </div>
      <div className="middle">
        <h1 className="title">
          <a href={routeTo("correct", name)}>{name}</a> / {item.name}{" "}
          <span className="hint">
            {item.split === "val" ? "validates" : "trains"}, {plural(item.objects, "object")}
          </span>
        </h1>
        {edits.conflict && <ConflictNotice conflict={edits.conflict} onKeep={edits.retry} onDrop={edits.drop} />}
        <Toolbar {...{ tool, radius }} onTool={setTool} onRadius={setRadius} onUndo={undo} onRedo={redo} />
        <Picture
          label={`Image ${item.name}`}
          tiled={tiled}
          look={channels.look}
          labels={labels}
          style={fullStyle}
          colours={classes?.table ?? null}
          painters={painters}
          centre={centre}
          onPick={pick}
          onGesture={tool === "select" ? null : draw}
        />
        <PlaceSliders axes={item.axes} t={place.t} z={place.z} onChange={setPlace} />
        <p className="readout" role="status">
          {said || stateOf(edits)}
        </p>
        {edits.refusal && (
          <>
            <Notice refusal={edits.refusal} onRetry={edits.retry} />
            {edits.waiting > 0 && (
              <button type="button" onClick={edits.skip}>
                Drop this change
              </button>
            )}
          </>
        )}
      </div>
      <div className="side answer">
        <button type="button" className="main" onClick={goNext} disabled={next.busy !== null}>
          Next image
        </button>
        {next.refusal && <Notice refusal={next.refusal} onRetry={next.retry} />}
        <LabelPanel
          style={style}
          onChange={setStyle}
          visible={visible}
          onVisible={setVisible}
          areas
          classes={classes?.colours ?? null}
        />
        {!image.rgb && (
          <ChannelPanel channels={image.channels} settings={channels.settings} onChange={channels.change} />
        )}
        <EditList edits={edits.recorded} />
      </div>
      <div className="below">
        {objects.refusal && <Notice refusal={objects.refusal} onRetry={objects.reload} />}
        {objects.value !== null && objects.value.rows.length > 0 && (
          <ObjectPanel
            title={plural(objects.value.rows.length, "row")}
            objects={objects.value}
            selected={selected}
            onSelect={selectRow}
          />
        )}
      </div>
    </div>
  );
}

function stateOf({ waiting, refusal, conflict }: Edits): string {
  if (waiting === 0) return "All changes are stored.";
  const changes = plural(waiting, "change");
  return refusal === null && conflict === null ? `Storing ${changes}` : `Not stored yet: ${changes}`;
}
