/** How a person wants channels to look, kept in this browser from image to image by the names of channels. */

import type { Channel } from "../service/contract";
import { channelColour } from "./colours";
import type { Appearance } from "./compose";

export interface ChannelSetting extends Appearance {
  visible: boolean;
}

const KEY = "cytoray.channels";
const MOST_VISIBLE = 4; // more channels than these at first are too many colours

export function defaultSettings(channels: Channel[]): ChannelSetting[] {
  return channels.map((channel, index) => ({
    colour: channelColour(channel.name, index, channels.length),
    low: channel.low,
    high: channel.high,
    visible: index < MOST_VISIBLE,
  }));
}

/** Return the settings for the channels of an image: those kept for their names, where they suit the image. */
export function loadSettings(channels: Channel[]): ChannelSetting[] {
  const kept = readKept();
  const settings = defaultSettings(channels).map((initial, index) => {
    const channel = channels[index]!;
    const one = kept[channel.name];
    if (one === undefined) return initial;
    // Limits of a much brighter or darker image would show nothing.
    const suits = one.low < channel.high && one.high > channel.low && one.high <= channel.max && one.low >= channel.min;
    return suits ? one : { ...one, low: initial.low, high: initial.high };
  });
  return settings.some((one) => one.visible) ? settings : settings.map((one) => ({ ...one, visible: true }));
}

export function keepSettings(channels: Channel[], settings: ChannelSetting[]): void {
  const kept = readKept();
  channels.forEach((channel, index) => {
    const setting = settings[index];
    if (setting !== undefined) kept[channel.name] = setting;
  });
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // A browser that stores nothing still shows images.
  }
}

function readKept(): Record<string, ChannelSetting> {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    if (typeof kept !== "object" || kept === null) return {};
    return Object.fromEntries(Object.entries(kept).filter(([, one]) => isSetting(one)));
  } catch {
    return {};
  }
}

function isSetting(value: unknown): value is ChannelSetting {
  const one = value as Partial<ChannelSetting> | null;
  const numbers = [one?.colour, one?.low, one?.high];
  return typeof one?.visible === "boolean" && numbers.every((number) => Number.isFinite(number));
}
