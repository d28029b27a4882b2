/* What both ends of the benchmark need of RFC 6455: the handshake's accept value, frame headers, masking.
 * No dependency; SHA-1 is here because the handshake asks for it, and for nothing else. */

#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };
enum { HEADER_MOST = 14, ACCEPT_LENGTH = 28, KEY_LENGTH = 24 };

static inline uint32_t rotate(uint32_t word, int by) { return word << by | word >> (32 - by); }

/* SHA-1 of at most 119 bytes: a key and the GUID are 60. */
static inline void sha1(const char *text, size_t length, unsigned char digest[20]) {
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char block[128] = {0};
    size_t blocks = length < 56 ? 1 : 2;
    memcpy(block, text, length);
    block[length] = 0x80;
    for (int i = 0; i < 8; i++) block[blocks * 64 - 1 - i] = (unsigned char)((uint64_t)length * 8 >> 8 * i);
    for (size_t at = 0; at < blocks * 64; at += 64) {
        uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
        for (int i = 0; i < 16; i++) {
            const unsigned char *from = block + at + 4 * i;
            w[i] = (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t mix = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                           : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                           : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                    : (b ^ c ^ d) + 0xCA62C1D6;
            uint32_t next = rotate(a, 5) + mix + e + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
    }
    for (int i = 0; i < 20; i++) digest[i] = (unsigned char)(state[i / 4] >> 8 * (3 - i % 4));
}

/* Base64 of `length` bytes into `out`, with padding and a final zero. */
static inline void base64(const unsigned char *bytes, size_t length, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t at = 0; at < length; at += 3) {
        size_t left = length - at;
        uint32_t three = (uint32_t)bytes[at] << 16 | (left > 1 ? bytes[at + 1] << 8 : 0) | (left > 2 ? bytes[at + 2] : 0);
        *out++ = digits[three >> 18];
        *out++ = digits[three >> 12 & 63];
        *out++ = left > 1 ? digits[three >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[three & 63] : '=';
    }
    *out = 0;
}

/* Sec-WebSocket-Accept for a key of 24 characters. */
static inline void accept_value(const char *key, char out[ACCEPT_LENGTH + 1]) {
    char text[61];
    unsigned char digest[20];
    memcpy(text, key, KEY_LENGTH);
    memcpy(text + KEY_LENGTH, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 37);
    sha1(text, 60, digest);
    base64(digest, 20, out);
}

/* Writes the header of a final frame; its length. mask: four bytes, or NULL from a server. */
static inline size_t frame_header(unsigned char *out, int opcode, uint64_t size, const unsigned char *mask) {
    size_t at = 2, wide = size < 126 ? 0 : size < 65536 ? 2 : 8;
    out[0] = (unsigned char)(0x80 | opcode);
    out[1] = (unsigned char)((mask ? 0x80 : 0) | (wide == 0 ? size : wide == 2 ? 126 : 127));
    for (size_t i = 0; i < wide; i++) out[at++] = (unsigned char)(size >> 8 * (wide - 1 - i));
    if (mask) memcpy(out + at, mask, 4), at += 4;
    return at;
}

/* How long the header is, once its first two bytes are there. */
static inline size_t header_length(const unsigned char *head) {
    int size = head[1] & 0x7F;
    return 2 + (size == 126 ? 2 : size == 127 ? 8 : 0) + (head[1] & 0x80 ? 4 : 0);
}

/* The payload's size, once the whole header is there. */
static inline uint64_t payload_size(const unsigned char *head) {
    uint64_t size = head[1] & 0x7F;
    int wide = size == 126 ? 2 : size == 127 ? 8 : 0;
    if (!wide) return size;
    size = 0;
    for (int i = 0; i < wide; i++) size = size << 8 | head[2 + i];
    return size;
}

/* XOR with the mask, whose first byte belongs to the byte at `offset` 0 of the payload. */
static inline void apply_mask(unsigned char *bytes, size_t length, const unsigned char mask[4], uint64_t offset) {
    unsigned char wide[8];
    for (int i = 0; i < 8; i++) wide[i] = mask[(offset + i) & 3];
    uint64_t key, word;
    memcpy(&key, wide, 8);
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        memcpy(&word, bytes + at, 8);
        word ^= key;
        memcpy(bytes + at, &word, 8);
    }
    for (; at < length; at++) bytes[at] ^= wide[at & 7];
}

#endif
