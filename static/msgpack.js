/** What the control channel needs of msgpack (msgpack.org): nil, booleans, numbers, text, arrays, maps; bytes are only read. */

const writer = new TextEncoder();
const reader = new TextDecoder();

/** @returns {Uint8Array} */
export function encode(value) {
  const out = [];
  write(value, out);
  return Uint8Array.from(out);
}

function write(value, out) {
  if (value === null || value === undefined) out.push(0xc0);
  else if (typeof value === "boolean") out.push(value ? 0xc3 : 0xc2);
  else if (typeof value === "number") writeNumber(value, out);
  else if (typeof value === "string") {
    const bytes = writer.encode(value);
    size(bytes.length, out, [0xa0, 31], 0xd9, 0xda, 0xdb);
    out.push(...bytes);
  } else if (Array.isArray(value)) {
    size(value.length, out, [0x90, 15], null, 0xdc, 0xdd);
    for (const each of value) write(each, out);
  } else {
    const pairs = Object.entries(value);
    size(pairs.length, out, [0x80, 15], null, 0xde, 0xdf);
    for (const [name, each] of pairs) {
      write(name, out);
      write(each, out);
    }
  }
}

function size(length, out, [small, most], one, two, four) {
  if (length <= most) out.push(small | length);
  else if (one !== null && length < 0x100) out.push(one, length);
  else if (length < 0x10000) out.push(two, length >> 8, length & 255);
  else out.push(four, length >>> 24, (length >> 16) & 255, (length >> 8) & 255, length & 255);
}

function writeNumber(value, out) {
  if (Number.isInteger(value) && value >= 0 && value < 128) out.push(value);
  else if (Number.isInteger(value) && value < 0 && value >= -32) out.push(value & 255);
  else {
    const whole = Number.isSafeInteger(value);
    const view = new DataView(new ArrayBuffer(8));
    if (whole) view.setBigInt64(0, BigInt(value));
    else view.setFloat64(0, value);
    out.push(whole ? 0xd3 : 0xcb, ...new Uint8Array(view.buffer));
  }
}

/** @param {ArrayBuffer} data One whole value; throws RangeError on anything else. */
export function decode(data) {
  const view = new DataView(data);
  let at = 0;
  const take = (count) => {
    if (at + count > view.byteLength) throw new RangeError("msgpack: cut short");
    at += count;
    return at - count;
  };
  const bytes = (length) => new Uint8Array(data, take(length), length);
  const text = (length) => reader.decode(bytes(length));
  const list = (length) => Array.from({ length }, read);
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [read(), read()]));
  const kinds = {
    0xc0: () => null, 0xc2: () => false, 0xc3: () => true,
    0xc4: () => bytes(view.getUint8(take(1))), 0xc5: () => bytes(view.getUint16(take(2))),
    0xc6: () => bytes(view.getUint32(take(4))),
    0xca: () => view.getFloat32(take(4)), 0xcb: () => view.getFloat64(take(8)),
    0xcc: () => view.getUint8(take(1)), 0xcd: () => view.getUint16(take(2)),
    0xce: () => view.getUint32(take(4)), 0xcf: () => Number(view.getBigUint64(take(8))),
    0xd0: () => view.getInt8(take(1)), 0xd1: () => view.getInt16(take(2)),
    0xd2: () => view.getInt32(take(4)), 0xd3: () => Number(view.getBigInt64(take(8))),
    0xd9: () => text(view.getUint8(take(1))), 0xda: () => text(view.getUint16(take(2))),
    0xdb: () => text(view.getUint32(take(4))),
    0xdc: () => list(view.getUint16(take(2))), 0xdd: () => list(view.getUint32(take(4))),
    0xde: () => map(view.getUint16(take(2))), 0xdf: () => map(view.getUint32(take(4))),
  };
  function read() {
    const kind = view.getUint8(take(1));
    if (kind < 0x80) return kind;
    if (kind >= 0xe0) return kind - 256;
    if (kind < 0x90) return map(kind & 15);
    if (kind < 0xa0) return list(kind & 15);
    if (kind < 0xc0) return text(kind & 31);
    if (!(kind in kinds)) throw new RangeError(`msgpack: kind ${kind}`);
    return kinds[kind]();
  }
  const value = read();
  if (at !== view.byteLength) throw new RangeError("msgpack: more than one value");
  return value;
}
