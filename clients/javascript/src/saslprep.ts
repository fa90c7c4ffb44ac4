// SASLprep (RFC 4013): the same password typed on different systems becomes the same bytes.

// Spaces that are mapped to the ASCII one (RFC 3454, table C.1.2).
const SPACES = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/g;
// Characters that are mapped to nothing (table B.1).
const NOTHING = /[\u00ad\u034f\u1806\u180b-\u180d\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]/g;
// Control characters, private use, non-characters, surrogates, marks of direction, tags, and what
// is not for plain text (tables C.2 to C.9).
const PROHIBITED = new RegExp(
  "[\\u0000-\\u001f\\u007f-\\u009f\\u06dd\\u070f\\u180e\\u2028\\u2029\\u2061-\\u2063" +
    "\\u206a-\\u206f\\ufff9-\\uffff\\u{1d173}-\\u{1d17a}\\ufdd0-\\ufdef\\u2ff0-\\u2ffb" +
    "\\u0340\\u0341\\u200e\\u200f\\u202a-\\u202e" +
    "\\u{e0001}\\u{e0020}-\\u{e007f}\\p{Co}\\p{Cs}\\p{Noncharacter_Code_Point}]",
  "u",
);
const RIGHT_TO_LEFT = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}]/u;
const LEFT_TO_RIGHT = /[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{Script=Han}]/u;

/**
 * The prepared form. As PostgreSQL does, a password that SASLprep would refuse is taken as it is.
 */
export function saslprep(password: string): string {
  if (/^[\x20-\x7e]*$/.test(password)) return password;
  const prepared = password.replace(SPACES, " ").replace(NOTHING, "").normalize("NFKC");
  if (prepared === "" || PROHIBITED.test(prepared) || !isDirectionClear(prepared)) return password;
  return prepared;
}

/** Text with right-to-left characters begins and ends with one and has no left-to-right ones. */
function isDirectionClear(text: string): boolean {
  if (!RIGHT_TO_LEFT.test(text)) return true;
  const characters = [...text];
  const ends = [characters[0]!, characters.at(-1)!];
  return !LEFT_TO_RIGHT.test(text) && ends.every((character) => RIGHT_TO_LEFT.test(character));
}
