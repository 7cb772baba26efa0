/** Numbers and times for people. */

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value: number) => (Math.abs(value) < 10_000 ? number : short).format(value);

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${number.format(size)} ${units[unit]}`;
}

export const ms = (value: number) =>
  value >= 1000 ? `${number.format(value / 1000)} s` : `${number.format(value)} ms`;

export const us = (value: number) => (value >= 1000 ? ms(value / 1000) : `${value} µs`);

export const percent = (value: number) => `${number.format(value * 100)} %`;

export const clock = (at: number) =>
  new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const date = (at: number) =>
  new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });

export function since(at: number, now: number): string {
  const seconds = Math.max(0, Math.round((now - at) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

export const plural = (number: number, noun: string) => `${number} ${noun}${number === 1 ? "" : "s"}`;
