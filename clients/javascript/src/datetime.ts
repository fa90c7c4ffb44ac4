// PostgreSQL's dates and times, which count from 2000-01-01, and their ISO texts.

import { malformedValue, outOfRange } from "./errors.js";

/** The date or timestamp after all others, as PostgreSQL writes it. */
export const INFINITY = "infinity";
/** The date or timestamp before all others. */
export const NEGATIVE_INFINITY = "-infinity";

const DATE_MAX = 0x7fff_ffff;
const DATE_MIN = -0x8000_0000;
const TIMESTAMP_MAX = (1n << 63n) - 1n;
const TIMESTAMP_MIN = -(1n << 63n);
const MICROS_PER_DAY = 86_400_000_000n;
/** 2000-01-01 in milliseconds from 1970. */
const EPOCH_MS = 946_684_800_000;
const EPOCH_DAYS = 10_957;
/** Milliseconds from 1970 that a `Date` can hold, either way. */
const DATE_LIMIT_MS = 8_640_000_000_000_000n;

/** `YYYY-MM-DD`, with ` BC` before the year 1. */
export function dateToText(days: number): string {
  if (days === DATE_MAX) return INFINITY;
  if (days === DATE_MIN) return NEGATIVE_INFINITY;
  const { text, bc } = civil(days);
  return text + bc;
}

/** Days since 2000-01-01, from `YYYY-MM-DD` (perhaps with ` BC`), `infinity`, `-infinity`. */
export function dateFromText(text: string): number {
  if (text === INFINITY) return DATE_MAX;
  if (text === NEGATIVE_INFINITY) return DATE_MIN;
  const match = /^(\d{1,7})-(\d{1,2})-(\d{1,2})( BC)?$/.exec(text);
  const days = match && daysFromCivil(match);
  if (days === null) throw malformedValue(`${JSON.stringify(text)} is no date YYYY-MM-DD`);
  return days;
}

/** `HH:MM:SS`, with as many digits of a second as there are. */
export function timeToText(micros: bigint): string {
  const seconds = Number(micros / 1_000_000n);
  const fraction = Number(micros % 1_000_000n);
  const text = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
    .map((part) => String(part).padStart(2, "0"))
    .join(":");
  if (fraction === 0) return text;
  return `${text}.${String(fraction).padStart(6, "0").replace(/0+$/, "")}`;
}

/** Microseconds since midnight, from `HH:MM:SS.ffffff`; `24:00:00` is the last. */
export function timeFromText(text: string): bigint {
  const match = /^(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?$/.exec(text);
  const [hours, minutes, seconds] = [1, 2, 3].map((part) => Number(match?.[part] ?? 0));
  const micros = BigInt(hours! * 3600 + minutes! * 60 + seconds!) * 1_000_000n
    + BigInt((match?.[4] ?? "").padEnd(6, "0"));
  if (!match || minutes! > 59 || seconds! > 60 || micros > MICROS_PER_DAY) {
    throw malformedValue(`${JSON.stringify(text)} is no time HH:MM:SS`);
  }
  return micros;
}

/** `HH:MM:SS+HH`, the offset with minutes and seconds if it has any. */
export function timeTzToText(time: { micros: bigint; offsetSecs: number }): string {
  const { micros, offsetSecs } = time;
  const total = Math.abs(offsetSecs);
  const parts = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
  while (parts.length > 1 && parts.at(-1) === 0) parts.pop();
  const offset = parts.map((part) => String(part).padStart(2, "0")).join(":");
  return `${timeToText(micros)}${offsetSecs < 0 ? "-" : "+"}${offset}`;
}

/** `HH:MM:SS+HH:MM` in the form of the protocol. */
export function timeTzFromText(text: string): { micros: bigint; offsetSecs: number } {
  const match = /^(.*?)(Z|([+-])(\d{1,2})(?::?(\d{2}))?(?::(\d{2}))?)$/.exec(text);
  if (!match) throw malformedValue(`${JSON.stringify(text)} is no time with an offset from UTC`);
  const [, time = "", , sign, ...offset] = match;
  const [hours = 0, minutes = 0, seconds = 0] = offset.map((part) => Number(part ?? 0));
  const total = hours * 3600 + minutes * 60 + seconds;
  return { micros: timeFromText(time), offsetSecs: sign === "-" ? -total : total };
}

/** `YYYY-MM-DD HH:MM:SS`, with as many digits of a second as there are. */
export function timestampToText(micros: bigint): string {
  if (micros === TIMESTAMP_MAX) return INFINITY;
  if (micros === TIMESTAMP_MIN) return NEGATIVE_INFINITY;
  const { days, rest } = split(micros);
  const { text, bc } = civil(days);
  return `${text} ${timeToText(rest)}${bc}`;
}

/** The same in UTC: `YYYY-MM-DD HH:MM:SS+00`. */
export function timestampTzToText(micros: bigint): string {
  if (micros === TIMESTAMP_MAX || micros === TIMESTAMP_MIN) return timestampToText(micros);
  const { days, rest } = split(micros);
  const { text, bc } = civil(days);
  return `${text} ${timeToText(rest)}+00${bc}`;
}

/** Microseconds since 2000-01-01, from `YYYY-MM-DD HH:MM:SS` (or `T` between), or an infinity. */
export function timestampFromText(text: string): bigint {
  if (text === INFINITY) return TIMESTAMP_MAX;
  if (text === NEGATIVE_INFINITY) return TIMESTAMP_MIN;
  const match = /^(\S+?)[ T](\S+?)( BC)?$/.exec(text);
  if (!match) throw malformedValue(`${JSON.stringify(text)} is no timestamp`);
  const days = dateFromText(match[1] + (match[3] ?? ""));
  return BigInt(days) * MICROS_PER_DAY + timeFromText(match[2]!);
}

/**
 * A timestamptz as a `Date`, to the millisecond; the infinities, and what is later than a `Date`
 * can be (the year 275760), as text.
 */
export function timestampTzToDate(micros: bigint): Date | string {
  const ms = (micros - ((micros % 1000n) + 1000n) % 1000n) / 1000n + BigInt(EPOCH_MS);
  if (ms > DATE_LIMIT_MS || ms < -DATE_LIMIT_MS) return timestampTzToText(micros);
  return new Date(Number(ms));
}

/** Microseconds since 2000-01-01 UTC. */
export function timestampTzFromDate(date: Date): bigint {
  const ms = date.getTime();
  if (Number.isNaN(ms)) throw outOfRange("the Date is not valid");
  return BigInt(ms - EPOCH_MS) * 1000n;
}

function split(micros: bigint): { days: number; rest: bigint } {
  const rest = ((micros % MICROS_PER_DAY) + MICROS_PER_DAY) % MICROS_PER_DAY;
  return { days: Number((micros - rest) / MICROS_PER_DAY), rest };
}

/** The proleptic Gregorian date, as PostgreSQL counts: eras of 400 years that begin in March. */
function civil(days: number): { text: string; bc: string } {
  const z = days + EPOCH_DAYS + 719_468;
  const era = Math.floor(z / 146_097);
  const doe = z - era * 146_097;
  const yoe = Math.floor(
    (doe - Math.floor(doe / 1460) + Math.floor(doe / 36_524) - Math.floor(doe / 146_096)) / 365,
  );
  const doy = doe - (365 * yoe + Math.floor(yoe / 4) - Math.floor(yoe / 100));
  const mp = Math.floor((5 * doy + 2) / 153);
  const day = doy - Math.floor((153 * mp + 2) / 5) + 1;
  const month = mp < 10 ? mp + 3 : mp - 9;
  const year = yoe + era * 400 + (month <= 2 ? 1 : 0);
  const shown = String(year > 0 ? year : 1 - year).padStart(4, "0");
  const text = `${shown}-${String(month).padStart(2, "0")}-${String(day).padStart(2, "0")}`;
  return { text, bc: year > 0 ? "" : " BC" };
}

/** Days since 2000-01-01, or null if the calendar has no such day. */
function daysFromCivil(match: RegExpExecArray): number | null {
  const [shown, month, day] = [Number(match[1]), Number(match[2]), Number(match[3])];
  if (shown === 0 || month < 1 || month > 12) return null;
  const year = match[4] === undefined ? shown : 1 - shown;
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const lengths = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
  if (day < 1 || day > lengths[month - 1]!) return null;
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yoe = y - era * 400;
  const doy = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const doe = yoe * 365 + Math.floor(yoe / 4) - Math.floor(yoe / 100) + doy;
  return era * 146_097 + doe - 719_468 - EPOCH_DAYS;
}
