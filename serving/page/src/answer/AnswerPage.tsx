import type { ReactElement } from "react";

import { Busy } from "../parts/Busy";
import { Notice } from "../parts/Notice";
import { goTo } from "../parts/route";
import { useLoaded } from "../parts/useLoaded";
import { getImages, getModels } from "../service/calls";
import type { Me } from "../service/contract";
import { Refusal } from "../service/refusal";
import { ImageIntake } from "./ImageIntake";
import { ImageList } from "./ImageList";
import { Workspace } from "./Workspace";

interface Props {
  me: Me;
  imageId: string | undefined;
  answerId: string | undefined;
}

const GONE = new Refusal(
  "This image does not exist any more.",
  "It has expired, or someone deleted it. Choose another image, or send it again.",
  404,
);

/** Images, and the answers of models over them. */
export function AnswerPage({ me, imageId, answerId }: Props): ReactElement {
  const images = useLoaded("images", getImages);
  const models = useLoaded("models", getModels);
  const image = images.value?.find((one) => one.id === imageId);
  const left = (
    <div className="intake">
      <ImageIntake
        limitMegabytes={me.limits?.body_megabytes ?? null}
        onStored={(stored) => {
          images.reload();
          goTo("images", stored.id);
        }}
      />
      {images.refusal && <Notice refusal={images.refusal} onRetry={images.reload} />}
      {images.value !== null && (
        <ImageList
          images={images.value}
          current={imageId}
          onDeleted={(id) => {
            images.reload();
            if (id === imageId) goTo();
          }}
        />
      )}
    </div>
  );
  if (image !== undefined) {
    return (
      <Workspace
        key={image.id}
        image={image}
        answerId={answerId}
        models={models}
        intake={left}
        onLost={images.reload}
      />
    );
  }
  return (
    <div className="start">
      <h1>Images</h1>
      {imageId !== undefined && images.value !== null && <Notice refusal={GONE} onRetry={images.reload} />}
      {images.value === null && images.refusal === null && <Busy label="Loading your images" />}
      {left}
    </div>
  );
}
