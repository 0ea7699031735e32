/** The addresses of the service for images and answers. */

import type { Me, ModelStatus, Objects, Question, StoredAnswer, StoredImage } from "./contract";
import { getJson, remove, request, sendJson } from "./request";

// Large files over slow connections; a model that is loaded first, then a long queue.
const UPLOAD_SECONDS = 3600;
const ANSWER_SECONDS = 330;

export const getMe = (): Promise<Me> => getJson("/me");

export async function getModels(): Promise<ModelStatus[]> {
  return (await getJson<{ models: ModelStatus[] }>("/models")).models;
}

export async function getImages(): Promise<StoredImage[]> {
  return (await getJson<{ images: StoredImage[] }>("/images")).images;
}

export function sendImage(file: Blob, name: string, signal: AbortSignal): Promise<StoredImage> {
  return getJson(`/images?name=${encodeURIComponent(name)}`, {
    method: "POST",
    body: file,
    headers: { "Content-Type": "application/octet-stream" },
    seconds: UPLOAD_SECONDS,
    signal,
  });
}

export function sendUri(uri: string, signal: AbortSignal): Promise<StoredImage> {
  return sendJson("/images", { uri }, { seconds: ANSWER_SECONDS, signal });
}

export const deleteImage = (id: string): Promise<void> => remove(imageAddress(id));

export function imageAddress(id: string): string {
  return `/images/${encodeURIComponent(id)}`;
}

export function answerAddress(image: string, answer: string): string {
  return `${imageAddress(image)}/answers/${encodeURIComponent(answer)}`;
}

export async function getAnswers(image: string): Promise<StoredAnswer[]> {
  return (await getJson<{ answers: StoredAnswer[] }>(`${imageAddress(image)}/answers`)).answers;
}

export function ask(image: string, question: Question, signal: AbortSignal): Promise<StoredAnswer> {
  return sendJson(`${imageAddress(image)}/answers`, question, { seconds: ANSWER_SECONDS, signal });
}

export function deleteAnswer(answer: StoredAnswer): Promise<void> {
  return remove(answerAddress(answer.image, answer.id));
}

export function getObjects(answer: StoredAnswer): Promise<Objects> {
  return getJson(`${answerAddress(answer.image, answer.id)}/objects`, { seconds: 120 });
}

export interface AnswerFile {
  content: Blob;
  name: string;
}

export function getFile(answer: StoredAnswer, mediaType: string): Promise<AnswerFile> {
  return request(
    `${answerAddress(answer.image, answer.id)}/file`,
    async (response) => ({ content: await response.blob(), name: nameIn(response) }),
    { headers: { Accept: mediaType }, seconds: ANSWER_SECONDS },
  );
}

function nameIn(response: Response): string {
  const header = response.headers.get("Content-Disposition") ?? "";
  return /filename="?([^";]+)"?/.exec(header)?.[1] ?? "";
}
