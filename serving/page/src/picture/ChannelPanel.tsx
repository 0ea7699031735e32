import type { ReactElement } from "react";

import type { Channel } from "../service/contract";
import type { ChannelSetting } from "./channelSettings";
import { defaultSettings } from "./channelSettings";
import { cssColour, parseColour } from "./colours";

interface Props {
  channels: Channel[];
  settings: ChannelSetting[];
  /** `moving` is true while a slider moves. */
  onChange: (settings: ChannelSetting[], moving: boolean) => void;
}

/** Contrast, colour and visibility of every channel. */
export function ChannelPanel({ channels, settings, onChange }: Props): ReactElement {
  const change = (index: number, part: Partial<ChannelSetting>, moving = false): void =>
    onChange(
      settings.map((one, place) => (place === index ? { ...one, ...part } : one)),
      moving,
    );
  return (
    <section className="panel" aria-labelledby="channels-title">
      <h2 id="channels-title">Channels</h2>
      {channels.map((channel, index) => (
        <ChannelRow
          key={channel.name + index}
          channel={channel}
          setting={settings[index]!}
          onChange={(part, moving) => change(index, part, moving)}
        />
      ))}
      <button type="button" className="quiet" onClick={() => onChange(defaultSettings(channels), false)}>
        Reset contrast and colours
      </button>
    </section>
  );
}

interface RowProps {
  channel: Channel;
  setting: ChannelSetting;
  onChange: (part: Partial<ChannelSetting>, moving?: boolean) => void;
}

function ChannelRow({ channel, setting, onChange }: RowProps): ReactElement {
  // Sliders over all 65,536 values of a 16-bit image would be too coarse for its few used ones.
  const top = Math.min(channel.max, Math.max(channel.high * 2, setting.high, channel.min + 1));
  const step = top - channel.min > 20 ? 1 : (top - channel.min) / 200;
  const setLow = (low: number, moving: boolean): void => onChange({ low: Math.min(low, setting.high - step) }, moving);
  const setHigh = (high: number, moving: boolean): void =>
    onChange({ high: Math.max(high, setting.low + step) }, moving);
  return (
    <div className="channel" role="group" aria-label={`Channel ${channel.name}`}>
      <label className="check">
        <input
          type="checkbox"
          checked={setting.visible}
          onChange={(event) => onChange({ visible: event.target.checked })}
        />
        <span className="name">{channel.name}</span>
      </label>
      <input
        type="color"
        aria-label={`Colour of ${channel.name}`}
        value={cssColour(setting.colour)}
        onChange={(event) => onChange({ colour: parseColour(event.target.value) })}
      />
      <Limit label="Black" {...{ channel, top, step }} value={setting.low} onChange={setLow} />
      <Limit label="Bright" {...{ channel, top, step }} value={setting.high} onChange={setHigh} />
    </div>
  );
}

interface LimitProps {
  label: string;
  channel: Channel;
  top: number;
  step: number;
  value: number;
  onChange: (value: number, moving: boolean) => void;
}

function Limit({ label, channel, top, step, value, onChange }: LimitProps): ReactElement {
  const end = (): void => onChange(value, false);
  return (
    <label className="limit">
      <span>{label}</span>
      <input
        type="range"
        min={channel.min}
        max={top}
        step={step}
        value={value}
        aria-label={`${label} limit of ${channel.name}`}
        onChange={(event) => onChange(Number(event.target.value), true)}
        onPointerUp={end}
        onKeyUp={end}
        onBlur={end}
      />
      <output>{Number(value.toPrecision(5)).toLocaleString("en")}</output>
    </label>
  );
}
