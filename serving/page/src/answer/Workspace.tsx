import type { ReactElement, ReactNode } from "react";
import { useMemo, useState } from "react";

import { Notice } from "../parts/Notice";
import { goTo } from "../parts/route";
import type { Loaded } from "../parts/useLoaded";
import { useLoaded } from "../parts/useLoaded";
import { plural } from "../parts/words";
import { ChannelPanel } from "../picture/ChannelPanel";
import { useChannels } from "../picture/useChannels";
import { getAnswers, imageAddress } from "../service/calls";
import type { ModelStatus, StoredAnswer, StoredImage } from "../service/contract";
import { sentence } from "../service/contract";
import { AnswerList } from "./AnswerList";
import { AnswerPanel } from "./AnswerPanel";
import { AskForm } from "./AskForm";
import { LabelPanel } from "./LabelPanel";
import { ObjectPanel } from "./ObjectPanel";
import { PlaceSliders } from "./PlaceSliders";
import { Prediction } from "./Prediction";
import { Stage } from "./Stage";
import { sizeOf } from "./ImageList";
import { useOverlay } from "./useOverlay";

interface Props {
  image: StoredImage;
  answerId: string | undefined;
  models: Loaded<ModelStatus[]>;
  /** The lists of images, beside the picture. */
  intake: ReactNode;
  /** Called if the service no longer has the image. */
  onLost: () => void;
}

/** One image with its answers. */
export function Workspace({ image, answerId, models, intake, onLost }: Props): ReactElement {
  const [place, setPlace] = useState({ t: 0, z: 0 });
  const answers = useLoaded(image.id, () => getAnswers(image.id));
  const answer = answers.value?.find((one) => one.id === answerId);
  const channels = useChannels(image, place);
  const overlay = useOverlay(image, answer ?? null, place, setPlace);
  const model = models.value?.find((one) => one.name === answer?.model.name);
  const tiled = useMemo(() => ({ ...image, address: imageAddress(image.id) }), [image]);

  const answered = (next: StoredAnswer): void => {
    answers.reload();
    goTo("images", image.id, "answers", next.id);
  };
  return (
    <div className="workspace">
      <div className="side ask">
        <AskForm image={image} models={models} shown={place} onAnswer={answered} />
        {intake}
      </div>
      <div className="middle">
        <h1 className="title">
          {image.name} <span className="hint">{sizeOf(image)}</span>
        </h1>
        {answer?.kind === "image" ? (
          <Prediction key={answer.id} image={image} answer={answer} look={channels.look} place={place} />
        ) : (
          <Stage tiled={tiled} look={channels.look} overlay={overlay} label={`Image ${image.name}`} />
        )}
        <PlaceSliders axes={image.axes} t={place.t} z={place.z} onChange={setPlace} />
        <p className="readout" role="status">
          {overlay.hovered}
        </p>
        {overlay.note !== null && <p className="hint">{overlay.note}</p>}
        {image.warnings.map((warning) => (
          <p key={sentence(warning)} className="hint">
            {sentence(warning)}
          </p>
        ))}
      </div>
      <div className="side answer">
        {answers.refusal && (
          <Notice
            refusal={answers.refusal}
            onRetry={() => {
              answers.reload();
              onLost();
            }}
          />
        )}
        {answers.value !== null && answers.value.length > 0 && (
          <AnswerList image={image} answers={answers.value} current={answerId} />
        )}
        {answer !== undefined && (
          <AnswerPanel
            answer={answer}
            model={model}
            onDeleted={() => {
              answers.reload();
              goTo("images", image.id);
            }}
          />
        )}
        {overlay.drawn && <LabelPanel {...overlay.drawing} areas={overlay.areas} classes={overlay.classes} />}
        {!image.rgb && (
          <ChannelPanel channels={image.channels} settings={channels.settings} onChange={channels.change} />
        )}
      </div>
      <div className="below">
        {overlay.objects.refusal && <Notice refusal={overlay.objects.refusal} onRetry={overlay.objects.reload} />}
        {overlay.objects.value !== null && overlay.objects.value.rows.length > 0 && (
          <ObjectPanel
            title={plural(overlay.objects.value.rows.length, "row")}
            objects={overlay.objects.value}
            selected={overlay.selected}
            onSelect={overlay.selectRow}
          />
        )}
      </div>
    </div>
  );
}
