// Byte-level byte-pair encoding, as Hugging Face's `tokenizers` does it for `tutvae.Tokenizer` with
// model="bpe" and uncased=True: a text to token ids and back. It reads that tokenizer's JSON.
"use strict";

globalThis.tutvaeLive ??= {};

tutvaeLive.Tokenizer = (() => {
  // A word with the space before it, a number, or signs; /u makes \p{L} any script's letter.
  const PIECE =
    /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
  const BYTE_SIGNS = byteSigns();
  const SIGN_BYTES = new Map(BYTE_SIGNS.map((sign, byte) => [sign, byte]));

  // The visible sign that stands for each byte in the vocabulary: its own where it has one.
  function byteSigns() {
    let next = 256;
    const isVisible = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return Array.from({ length: 256 }, (_, byte) =>
      String.fromCharCode(isVisible(byte) ? byte : next++),
    );
  }

  // Letter by letter, because JavaScript spells a capital sigma by its place in the word.
  function lowerCase(text) {
    return [...text].map((letter) => letter.toLowerCase()).join("");
  }

  return class Tokenizer {
    constructor({ marks, tokenizer }) {
      const { vocab, merges } = tokenizer.model;
      this.ids = new Map(Object.entries(vocab));
      this.tokens = [];
      for (const [token, id] of this.ids) this.tokens[id] = token;
      this.ranks = new Map(merges.map((pair, rank) => [pair.join(" "), rank]));
      this.pad = this.ids.get(marks.pad);
      this.bos = this.ids.get(marks.bos);
      this.eos = this.ids.get(marks.eos);
      this.unk = this.ids.get(marks.unk);
      this.marks = new RegExp(Object.values(marks).join("|"));
    }

    // The token ids of a text, from its start mark to its end mark. A mark that is spelt out in it
    // becomes the unknown mark.
    encode(text) {
      const parts = text.split(this.marks).map((part) => this.encodePart(part));
      const joined = parts.flatMap((ids, index) => (index ? [this.unk, ...ids] : ids));
      return [this.bos, ...joined, this.eos];
    }

    // The text of token ids up to their end mark; bytes that make no character become \uFFFD.
    decode(ids) {
      const end = ids.indexOf(this.eos);
      const kept = end < 0 ? ids : ids.slice(0, end);
      const signs = kept.flatMap((id) => [...this.tokens[id]]);
      const bytes = Uint8Array.from(signs, (sign) => SIGN_BYTES.get(sign));
      return new TextDecoder().decode(bytes).replace(/^ /, "");
    }

    encodePart(text) {
      const lower = lowerCase(text);
      const spaced = lower === "" || lower.startsWith(" ") ? lower : ` ${lower}`;
      return (spaced.match(PIECE) ?? []).flatMap((piece) => this.encodePiece(piece));
    }

    encodePiece(piece) {
      const bytes = [...new TextEncoder().encode(piece)];
      let parts = bytes.map((byte) => BYTE_SIGNS[byte]);
      for (let pair = this.firstPair(parts); pair; pair = this.firstPair(parts)) {
        parts = merge(parts, pair);
      }
      return parts.map((part) => this.ids.get(part));
    }

    // The neighbours that were merged earliest in training; undefined if none ever were.
    firstPair(parts) {
      let best;
      let lowest = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < lowest) [lowest, best] = [rank, [parts[i], parts[i + 1]]];
      }
      return best;
    }
  };

  function merge(parts, [left, right]) {
    const merged = [];
    for (let i = 0; i < parts.length; i++) {
      const isPair = parts[i] === left && parts[i + 1] === right;
      merged.push(isPair ? left + right : parts[i]);
      if (isPair) i++;
    }
    return merged;
  }
})();
