/* The workspace of the benchmarks: what stands behind every proxy.
 *
 *     echo PORT
 *
 * GET /            the port, which tells whoever comes through a proxy where the workspace is
 * GET /1k  /100k   a body of so many KiB, with keep-alive
 * WebSocket        every data frame comes back, pings are answered, closing is answered
 * WebSocket /stream?N   also sends binary frames of 16 KiB, N bytes a second; 0: as fast as they are taken
 *
 * One thread, epoll. A frame's payload is unmasked where it was read and sent on without waiting for its
 * rest, so that large messages need no large buffers; what the socket does not take at once is kept, and
 * nothing more is read meanwhile. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "websocket.h"

enum { HEAD_MOST = 8192, READ_MOST = 1 << 18, CHUNK = 16384, TICKS = 200 /* a second, for streams */ };

struct peer {
    int fd;
    bool upgraded, closing, wants_write, streams;
    char head[HEAD_MOST]; /* of a request, until it is whole */
    size_t head_length;
    unsigned char frame[HEADER_MOST]; /* header of the frame that is being read */
    size_t frame_length;
    uint64_t left, at; /* of its payload: bytes to come, bytes seen */
    unsigned char *kept; /* not taken by the socket yet */
    size_t kept_length, kept_sent;
    double rate, owed; /* of a stream: bytes a second, bytes due */
    struct peer *next; /* the next stream */
};

static int poller, port;
static struct peer *streams;
static unsigned char buffer[READ_MOST + HEADER_MOST], out[READ_MOST + 65536];
static char body[102400];

static void watch(struct peer *peer, int how) {
    bool write = peer->kept_sent < peer->kept_length;
    /* Whoever does not take answers is not read from either. */
    struct epoll_event event = {.events = write ? EPOLLOUT : EPOLLIN, .data.ptr = peer};
    if (how == EPOLL_CTL_ADD || write != peer->wants_write) epoll_ctl(poller, how, peer->fd, &event);
    peer->wants_write = write;
}

static void end(struct peer *peer) {
    for (struct peer **each = &streams; *each; each = &(*each)->next)
        if (*each == peer) {
            *each = peer->next;
            break;
        }
    close(peer->fd);
    free(peer->kept);
    free(peer);
}

/* False when the connection is gone. */
static bool put(struct peer *peer, const void *bytes, size_t length) {
    const unsigned char *from = bytes;
    if (peer->kept_sent == peer->kept_length) {
        ssize_t sent = send(peer->fd, from, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent > 0) from += sent, length -= (size_t)sent;
        peer->kept_sent = peer->kept_length = 0;
    }
    if (!length) return true;
    unsigned char *more = realloc(peer->kept, peer->kept_length + length);
    if (!more) return false;
    memcpy(more + peer->kept_length, from, length);
    peer->kept = more, peer->kept_length += length;
    return true;
}

static bool drain(struct peer *peer) {
    ssize_t sent = send(peer->fd, peer->kept + peer->kept_sent, peer->kept_length - peer->kept_sent, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    peer->kept_sent += (size_t)sent;
    if (peer->kept_sent == peer->kept_length) {
        free(peer->kept); /* idle sessions keep no buffer */
        peer->kept = NULL, peer->kept_sent = peer->kept_length = 0;
        if (peer->closing) return false;
    }
    return true;
}

static bool stream_more(struct peer *peer) {
    while (peer->kept_sent == peer->kept_length && (peer->rate == 0 || peer->owed >= CHUNK)) {
        size_t length = frame_header(out, OP_BINARY, CHUNK, NULL);
        memset(out + length, 's', CHUNK);
        peer->owed -= CHUNK;
        if (!put(peer, out, length + CHUNK)) return false;
    }
    watch(peer, EPOLL_CTL_MOD);
    return true;
}

static const char *header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, length) && line[2 + length] == ':') {
            line += 3 + length;
            return line + strspn(line, " \t");
        }
    return NULL;
}

static bool upgrade(struct peer *peer, const char *key) {
    char answer[200], accept[ACCEPT_LENGTH + 1];
    accept_value(key, accept);
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    peer->upgraded = true;
    if (!strncmp(peer->head, "GET /stream?", 12)) {
        peer->streams = true, peer->rate = atof(peer->head + 12);
        peer->next = streams, streams = peer;
    }
    return put(peer, answer, (size_t)length);
}

static bool answer(struct peer *peer) {
    const char *key = header(peer->head, "Sec-WebSocket-Key");
    if (key && strcspn(key, " \r") == KEY_LENGTH) return upgrade(peer, key);
    char number[12];
    const char *content = body;
    size_t size = 0;
    if (!strncmp(peer->head, "GET /100k ", 10)) size = 102400;
    else if (!strncmp(peer->head, "GET /1k ", 8)) size = 1024;
    else size = (size_t)snprintf(number, sizeof number, "%d", port), content = number;
    int length = snprintf((char *)out, 200, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", size);
    memcpy(out + length, content, size);
    return put(peer, out, (size_t)length + size);
}

/* Frames as far as they have come, back without their masks: never longer than what came. */
static bool frames(struct peer *peer, unsigned char *bytes, size_t length) {
    size_t filled = 0;
    while (length) {
        if (!peer->left) {
            peer->frame[peer->frame_length++] = *bytes++, length--;
            if (peer->frame_length < 2 || peer->frame_length < header_length(peer->frame)) continue;
            int opcode = peer->frame[0] & 15;
            peer->left = payload_size(peer->frame), peer->at = 0;
            filled += frame_header(out + filled, opcode == OP_PING ? OP_PONG : opcode, peer->left, NULL);
            if (opcode == OP_CLOSE) peer->closing = true;
            if (!(peer->frame[1] & 0x80)) return false; /* a client has to mask */
        }
        size_t part = length < peer->left ? length : (size_t)peer->left;
        apply_mask(bytes, part, peer->frame + header_length(peer->frame) - 4, peer->at);
        memcpy(out + filled, bytes, part);
        filled += part, bytes += part, length -= part, peer->left -= part, peer->at += part;
        if (!peer->left) peer->frame_length = 0;
    }
    if (filled && !put(peer, out, filled)) return false;
    return !(peer->closing && !peer->left && peer->kept_sent == peer->kept_length);
}

static bool take(struct peer *peer) {
    ssize_t got = recv(peer->fd, buffer, READ_MOST, 0);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    if (peer->upgraded) return frames(peer, buffer, (size_t)got);
    if (peer->head_length + (size_t)got >= HEAD_MOST) return false;
    memcpy(peer->head + peer->head_length, buffer, (size_t)got);
    peer->head_length += (size_t)got;
    peer->head[peer->head_length] = 0;
    char *stop;
    while (!peer->upgraded && (stop = strstr(peer->head, "\r\n\r\n"))) {
        stop[2] = 0;
        if (!answer(peer)) return false;
        size_t rest = peer->head_length - (size_t)(stop + 4 - peer->head);
        memmove(peer->head, stop + 4, rest + 1);
        peer->head_length = rest;
    }
    if (peer->upgraded && peer->head_length) return frames(peer, (unsigned char *)peer->head, peer->head_length);
    return true;
}

static void welcome(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct peer *peer = calloc(1, sizeof *peer);
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        peer->fd = fd;
        watch(peer, EPOLL_CTL_ADD);
    }
}

static void tick(int timer) {
    uint64_t ticks;
    if (read(timer, &ticks, sizeof ticks) < 0) return;
    for (struct peer *each = streams, *next; each; each = next) {
        next = each->next;
        each->owed += each->rate / TICKS * (double)ticks;
        if (!stream_more(each)) end(each);
    }
}

int main(int argc, char **argv) {
    port = argc > 1 ? atoi(argv[1]) : 0;
    if (!port) return fprintf(stderr, "usage: echo PORT\n"), 2;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    memset(body, 'x', sizeof body);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4096)) return perror("echo"), 1;
    poller = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct itimerspec every = {{0, 1000000000 / TICKS}, {0, 1000000000 / TICKS}};
    timerfd_settime(timer, 0, &every, NULL);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &timer;
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    for (;;) {
        int count = epoll_wait(poller, events, 256, -1);
        bool ticked = false;
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            if (events[i].data.ptr == &listener) welcome(listener);
            else if (events[i].data.ptr == &timer) ticked = true;
            else {
                bool stays = peer->wants_write ? drain(peer) : take(peer);
                if (stays && peer->streams && peer->rate == 0) stays = stream_more(peer);
                if (stays) watch(peer, EPOLL_CTL_MOD);
                else end(peer);
            }
        }
        if (ticked) tick(timer); /* last: it may end peers that this round's events are of */
    }
}
