// Numbers in words.

/** `18.1 MB`: decimal units, as download pages and file managers use. */
export function bytes(count: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** `3 s`, `4 min`, `1 h 20 min`. */
export function duration(seconds: number): string {
  if (seconds < 60) {
    return `${Math.max(1, Math.round(seconds))} s`;
  }
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Three digits at most: `0.42`, `12.3`, `140`. */
export function short(value: number): string {
  return value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

/** `16.6 million`, `1.24 billion`. */
export function many(count: number): string {
  return count >= 1e9
    ? `${short(count / 1e9)} billion`
    : count >= 1e6
      ? `${short(count / 1e6)} million`
      : String(count);
}

/** `1 chat`, `3 chats`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
