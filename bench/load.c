/* The load of the benchmarks: WebSocket sessions, or HTTP connections, from one thread.
 *
 *     load MODE name=value…        every result is one line of JSON on standard output
 *
 * echo     every session sends its next message when the last one is back (closed loop)
 * open     every session sends `rate` messages a second whatever comes back; latency counts from the
 *          moment a message was due, so a stall is felt by every message that it delays
 * setup    connect, upgrade, one echo, close; `together` of them under way, again and again
 * hold     reads numbers from standard input: opens sessions until there are that many, says so; ends
 *          with its input
 * stream   how fast one session takes what /stream sends
 * http     closed loop of requests with keep-alive
 *
 * port, host, path, cookie, origin   whom to ask, and as whom
 * sessions size rate seconds warm    how much, how long; nothing that happens in the first `warm` s counts
 * stream=PATH                        in echo and open: one more session, which only receives
 * pids=1,2 beside=3 upstream=4       processes whose CPU between warm-up and end is told: the proxy's own, of
 *                                    what stands beside it, and the workspace's; read here, so that the
 *                                    account and the count of messages begin and end together
 *
 * A lost session, a wrong handshake or echo, 20 s without progress: a line on standard error, exit code 1. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"
#include "websocket.h"

enum { READ_MOST = 1 << 18, HEAD_MOST = 2048, PATIENCE = 20 /* seconds */ };
enum state { UPGRADING, OPEN, CLOSING, GONE };

struct session {
    int fd;
    enum state state;
    bool wants_write, receives; /* receives: what a stream sends */
    char head[HEAD_MOST], accept[ACCEPT_LENGTH + 1];
    size_t head_length;
    /* Out: `due` messages of which the first has been sent up to `sent`; control frames go in between. */
    uint64_t due, sent;
    unsigned char control[HEADER_MOST + 128];
    size_t control_length;
    /* In. */
    unsigned char frame[HEADER_MOST + 125]; /* the header; of control frames the payload too */
    size_t frame_length;
    uint64_t left;
    uint64_t answered;   /* messages that came back */
    uint64_t started_at; /* ns: of this round trip, or of this set-up */
};

static struct {
    const char *mode, *host, *path, *cookie, *origin, *stream;
    int port, sessions, together;
    size_t size;
    double rate, seconds, warm;
    int pids[64], beside[64], upstream[64];
} options = {.host = "127.0.0.1", .path = "/", .cookie = "", .origin = "", .sessions = 64, .together = 32,
             .size = 64, .rate = 20, .seconds = 1, .warm = 0.3};

static int poller, opened, timer = -1;
static struct session **all;
static unsigned char buffer[READ_MOST], *message;
static size_t message_length;
static bool counting, stopping;
static uint64_t counted, streamed, opens_at, period; /* period: ns between two messages of all sessions */
static uint64_t sent_messages;
static struct histogram latency;
static void (*on_open)(struct session *), (*on_answer)(struct session *), (*on_end)(struct session *);

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fprintf(stderr, "load %s: ", options.mode);
    vfprintf(stderr, format, values);
    fprintf(stderr, "\n");
    exit(1);
}

/* Nanoseconds of CPU of all threads of these processes, those that ended among them. */
static uint64_t cpu_ns(const int *pids) {
    uint64_t sum = 0;
    for (; *pids; pids++) {
        clockid_t clock;
        struct timespec used;
        if (clock_getcpuclockid(*pids, &clock) || clock_gettime(clock, &used)) fail("process %d is gone", *pids);
        sum += (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
    }
    return sum;
}

static void watch(struct session *session, bool write) {
    if (write == session->wants_write) return;
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = session};
    epoll_ctl(poller, EPOLL_CTL_MOD, session->fd, &event);
    session->wants_write = write;
}

/* As much as the socket takes. A control frame waits for the end of the message under way. */
static void flush(struct session *session) {
    for (;;) {
        bool control = session->control_length && !session->sent;
        if (!control && !session->due) return watch(session, false);
        const unsigned char *from = control ? session->control : message + session->sent;
        size_t length = control ? session->control_length : message_length - session->sent;
        ssize_t sent = send(session->fd, from, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            if (session->state == CLOSING) return;
            fail("a session was lost while sending: %s", strerror(errno));
        }
        if (sent < 0) return watch(session, true);
        if (control) {
            session->control_length -= (size_t)sent;
            memmove(session->control, session->control + sent, session->control_length);
        } else if ((session->sent += (size_t)sent) == message_length)
            session->sent = 0, session->due--;
    }
}

static void put_control(struct session *session, int opcode, const unsigned char *payload, size_t size) {
    static const unsigned char mask[4] = {0x5A, 0x17, 0xC3, 0x88};
    if (session->control_length + HEADER_MOST + size > sizeof session->control) return; /* one pong is enough */
    unsigned char *to = session->control + session->control_length;
    size_t length = frame_header(to, opcode, size, mask);
    memcpy(to + length, payload, size);
    apply_mask(to + length, size, mask, 0);
    session->control_length += length + size;
    flush(session);
}

static void send_message(struct session *session) {
    session->due++;
    flush(session);
}

static bool http(void) { return !strcmp(options.mode, "http"); }

static void make_message(void) {
    static const unsigned char mask[4] = {0xA1, 0x3C, 0x59, 0xE7};
    message = malloc(options.size + HEADER_MOST + 4096);
    if (http()) {
        message_length = (size_t)sprintf((char *)message, "GET %.1000s HTTP/1.1\r\nHost: %.200s\r\n%s%.1500s%s\r\n", options.path,
                                         options.host, *options.cookie ? "Cookie: " : "", options.cookie,
                                         *options.cookie ? "\r\n" : "");
        return;
    }
    size_t head = frame_header(message, OP_BINARY, options.size, mask);
    for (size_t i = 0; i < options.size; i++) message[head + i] = (unsigned char)(i * 31 + 7);
    apply_mask(message + head, options.size, mask, 0);
    message_length = head + options.size;
}

/* Connects and asks for the upgrade; it goes out at once, as a socket's buffer is empty at first. */
static void begin(struct session *session, const char *path) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    memset(session, 0, sizeof *session);
    session->started_at = now_ns();
    session->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (session->fd < 0 || connect(session->fd, (struct sockaddr *)&there, sizeof there))
        fail("cannot connect to port %d: %s", options.port, strerror(errno));
    fcntl(session->fd, F_SETFL, O_NONBLOCK);
    setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = session};
    epoll_ctl(poller, EPOLL_CTL_ADD, session->fd, &event);
    if (http()) {
        session->state = OPEN, opened++;
        return;
    }
    unsigned char random[16];
    char key[KEY_LENGTH + 1], head[4096];
    for (int i = 0; i < 16; i++) random[i] = (unsigned char)rand();
    base64(random, 16, key);
    accept_value(key, session->accept);
    int length = snprintf(head, sizeof head,
                          "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s%s%s%s%s%s\r\n",
                          path, options.host, key, *options.origin ? "Origin: " : "", options.origin,
                          *options.origin ? "\r\n" : "", *options.cookie ? "Cookie: " : "", options.cookie,
                          *options.cookie ? "\r\n" : "");
    if (send(session->fd, head, (size_t)length, MSG_NOSIGNAL) != length) fail("the handshake did not go out");
}

static void end(struct session *session) {
    close(session->fd);
    session->state = GONE;
    opened--;
    if (on_end) on_end(session);
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

/* Takes bytes into the head; how many belonged to it. Whole: `*whole`, and it ends with a zero. */
static size_t take_head(struct session *session, const unsigned char *bytes, size_t length, bool *whole) {
    for (size_t i = 0; i < length; i++) {
        if (session->head_length == HEAD_MOST - 1) fail("the answer has a head of more than %d bytes", HEAD_MOST);
        session->head[session->head_length++] = (char)bytes[i];
        if (bytes[i] == '\n' && session->head_length > 3 && !memcmp(session->head + session->head_length - 4, "\r\n\r\n", 4)) {
            session->head[session->head_length] = 0;
            *whole = true;
            return i + 1;
        }
    }
    return length;
}

static size_t upgrade(struct session *session, const unsigned char *bytes, size_t length) {
    bool whole = false;
    size_t taken = take_head(session, bytes, length, &whole);
    if (!whole) return taken;
    const char *accept = header(session->head, "Sec-WebSocket-Accept");
    if (strncmp(session->head, "HTTP/1.1 101 ", 13)) fail("the handshake was answered: %.300s", session->head);
    if (!accept || strncmp(accept, session->accept, ACCEPT_LENGTH)) fail("the handshake was accepted for another key");
    session->state = OPEN, opened++;
    if (on_open) on_open(session);
    return taken;
}

/* One part of a response; a head without Content-Length is not understood here. */
static size_t response(struct session *session, const unsigned char *bytes, size_t length) {
    size_t taken = 0;
    if (!session->left) {
        bool whole = false;
        taken = take_head(session, bytes, length, &whole);
        if (!whole) return taken;
        const char *size = header(session->head, "Content-Length");
        if (strncmp(session->head, "HTTP/1.1 200 ", 13) || !size) fail("a request was answered: %.300s", session->head);
        session->left = strtoull(size, NULL, 10), session->head_length = 0;
    }
    size_t part = length - taken < session->left ? length - taken : (size_t)session->left;
    if (!(session->left -= part)) session->answered++, on_answer(session);
    return taken + part;
}

static void frame_done(struct session *session) {
    int opcode = session->frame[0] & 15;
    const unsigned char *payload = session->frame + 2;
    size_t size = session->frame[1] & 0x7F;
    session->frame_length = 0;
    if (opcode == OP_PING) put_control(session, OP_PONG, payload, size);
    else if (opcode == OP_CLOSE) {
        if (session->state != CLOSING) fail("a session was closed with %d: %.*s", size > 1 ? payload[0] << 8 | payload[1] : 1005,
                                            size > 2 ? (int)size - 2 : 0, (const char *)payload + 2);
        end(session);
    } else if (opcode != OP_PONG && !session->receives) session->answered++, on_answer(session);
}

/* One part of a frame. The first echo of a session is compared with what was sent, later ones by their size. */
static size_t frame(struct session *session, const unsigned char *bytes, size_t length) {
    if (!session->left) {
        session->frame[session->frame_length++] = *bytes;
        if (session->frame_length < 2 || session->frame_length < header_length(session->frame)) return 1;
        uint64_t size = session->left = payload_size(session->frame);
        bool data = (session->frame[0] & 15) < OP_CLOSE;
        if (!data && size > 125) fail("a control frame of %zu bytes came", (size_t)size);
        if (data && !session->receives && size != options.size) fail("%zu bytes came back as %zu", options.size, (size_t)size);
        if (!size) frame_done(session);
        return 1;
    }
    size_t part = length < session->left ? length : (size_t)session->left;
    if ((session->frame[0] & 15) >= OP_CLOSE) {
        memcpy(session->frame + session->frame_length, bytes, part);
        session->frame_length += part;
    } else if (session->receives) {
        if (counting) streamed += part;
    } else if (!session->answered)
        for (size_t i = 0, at = options.size - session->left; i < part; i++)
            if (bytes[i] != (unsigned char)((at + i) * 31 + 7)) fail("another message came back than was sent");
    if (!(session->left -= part)) frame_done(session);
    return part;
}

static void take(struct session *session) {
    ssize_t got = recv(session->fd, buffer, READ_MOST, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        if (session->state == CLOSING) return end(session);
        fail("a session was lost (%s)", got ? strerror(errno) : "closed");
    }
    for (size_t at = 0; at < (size_t)got && session->state != GONE;) {
        const unsigned char *bytes = buffer + at;
        size_t length = (size_t)got - at;
        at += http() ? response(session, bytes, length)
              : session->state == UPGRADING ? upgrade(session, bytes, length) : frame(session, bytes, length);
    }
}

/* Messages of the open loop that are due by now. */
static void send_due(void) {
    uint64_t ticks, now = now_ns();
    if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) fail("timer: %s", strerror(errno));
    for (; !stopping && opens_at + sent_messages * period <= now; sent_messages++)
        send_message(all[sent_messages % (uint64_t)options.sessions]);
    uint64_t next = opens_at + sent_messages * period;
    struct itimerspec at = {.it_value = {(time_t)(next / 1000000000), (long)(next % 1000000000)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, stopping ? &(struct itimerspec){0} : &at, NULL);
}

static void turn(int patience_ms) {
    struct epoll_event events[256];
    int count = epoll_wait(poller, events, 256, patience_ms);
    for (int i = 0; i < count; i++) {
        struct session *session = events[i].data.ptr;
        if (!session) {
            send_due();
            continue;
        }
        if (events[i].events & EPOLLOUT) flush(session);
        if (events[i].events & ~(unsigned)EPOLLOUT && session->state != GONE) take(session);
    }
}

static void until(uint64_t moment) {
    for (uint64_t now; (now = now_ns()) < moment;) {
        alarm(PATIENCE);
        turn((int)((moment - now) / 1000000 + 1));
    }
}

/* Sessions until there are `count`, never more than `together` handshakes under way. */
static void open_sessions(int count) {
    static int begun;
    alarm(PATIENCE);
    while (opened < count) {
        for (; begun < count && begun - opened < options.together; begun++) begin(all[begun], options.path);
        int before = opened;
        if (opened < count) turn(1000);
        if (opened != before) alarm(PATIENCE);
    }
}

static void close_session(struct session *session) {
    static const unsigned char code[2] = {1000 >> 8, 1000 & 255};
    session->state = CLOSING;
    put_control(session, OP_CLOSE, code, 2);
}

static void close_all(void) {
    stopping = true;
    if (http()) return;
    for (int i = 0; i < options.sessions + 1; i++)
        if (all[i]->state == OPEN) close_session(all[i]);
    for (uint64_t at_most = now_ns() + 3000000000; opened > 0 && now_ns() < at_most;) turn(100);
}

/* Called when a message, a set-up or a response has come: it took since `since`. */
static void count(uint64_t since, uint64_t now) {
    if (!counting) return;
    counted++;
    record(&latency, now > since ? now - since : 0);
}

static void answer_closed(struct session *session) {
    uint64_t now = now_ns();
    count(session->started_at, now);
    if (stopping) return;
    session->started_at = now;
    send_message(session);
}

static void answer_open(struct session *session) {
    /* The how manieth of this session came back tells when it was due. */
    uint64_t number = (session->answered - 1) * (uint64_t)options.sessions + (uint64_t)(session - all[0]);
    count(opens_at + number * period, now_ns());
}

static void answer_setup(struct session *session) { close_session(session); }

static void end_setup(struct session *session) {
    count(session->started_at, now_ns());
    if (!stopping) begin(session, options.path);
}

/* Warm-up, then what counts, then one line with all figures. */
static void measure(void) {
    until(now_ns() + (uint64_t)(options.warm * 1e9));
    printf("{\"event\": \"counting\"}\n");
    fflush(stdout);
    uint64_t cpu = cpu_ns(options.pids), beside = cpu_ns(options.beside);
    uint64_t upstream = cpu_ns(options.upstream), own = cpu_ns((int[]){getpid(), 0}), started = now_ns();
    counting = true;
    until(started + (uint64_t)(options.seconds * 1e9));
    counting = false;
    double seconds = (double)(now_ns() - started) / 1e9, each = counted ? (double)counted : 1;
    double used = (double)(cpu_ns(options.pids) - cpu), used_beside = (double)(cpu_ns(options.beside) - beside);
    double used_there = (double)(cpu_ns(options.upstream) - upstream);
    double used_here = (double)(cpu_ns((int[]){getpid(), 0}) - own);
    printf("{\"event\": \"done\", \"count\": %llu, \"seconds\": %.4f, \"per_second\": %.1f, \"cpu_us\": %.3f,"
           " \"beside_us\": %.3f, \"upstream_us\": %.3f, \"load_us\": %.3f, \"busy\": %.4f, \"load_busy\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f,"
           " \"max_ms\": %.4f, \"streamed_mb\": %.3f}\n",
           (unsigned long long)counted, seconds, (double)counted / seconds, used / each / 1e3, used_beside / each / 1e3,
           used_there / each / 1e3, used_here / each / 1e3,
           used / 1e9 / seconds, used_here / 1e9 / seconds, quantile(&latency, 0.5) / 1e6, quantile(&latency, 0.99) / 1e6,
           (double)latency.most / 1e6, (double)streamed / 1e6 / seconds);
    fflush(stdout);
}

static void run_echo(void) {
    on_answer = answer_closed;
    open_sessions(options.sessions);
    for (int i = 0; i < options.sessions; i++) all[i]->started_at = now_ns(), send_message(all[i]);
    measure();
}

static void run_open(void) {
    on_answer = answer_open;
    open_sessions(options.sessions);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    period = (uint64_t)(1e9 / options.rate / options.sessions);
    opens_at = now_ns() + 1000000;
    send_due();
    measure();
}

static void run_setup(void) {
    on_open = send_message, on_answer = answer_setup, on_end = end_setup;
    for (int i = 0; i < options.together; i++) begin(all[i], options.path);
    measure();
    stopping = true;
    /* Those under way come to their end: nothing is left half-open at the proxy. */
    for (uint64_t at_most = now_ns() + 3000000000; now_ns() < at_most;) {
        int under_way = 0;
        for (int i = 0; i < options.together; i++) under_way += all[i]->state != GONE;
        if (!under_way) return;
        turn(50);
    }
}

static void run_hold(void) {
    char line[32];
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = &timer}, events[1];
    int other = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(other, EPOLL_CTL_ADD, STDIN_FILENO, &input);
    for (;;) {
        alarm(0);
        while (!epoll_wait(other, events, 1, 0)) turn(50); /* pings are answered meanwhile */
        if (!fgets(line, sizeof line, stdin)) return;
        open_sessions(atoi(line));
        printf("{\"event\": \"open\", \"sessions\": %d}\n", opened);
        fflush(stdout);
    }
}

/* One more session, past the others, that only receives. */
static void open_stream(const char *path) {
    struct session *session = all[options.sessions];
    begin(session, path);
    session->receives = true;
    alarm(PATIENCE);
    while (session->state != OPEN) turn(1000);
    opened--; /* the sessions that send are counted */
}

static void read_pids(const char *text, int *pids) {
    for (int i = 0; *text && i < 63; i++) {
        char *next;
        pids[i] = (int)strtol(text, &next, 10);
        text = *next ? next + 1 : next;
    }
}

static void read_option(const char *name, const char *value) {
    if (!strcmp(name, "port")) options.port = atoi(value);
    else if (!strcmp(name, "host")) options.host = value;
    else if (!strcmp(name, "path")) options.path = value;
    else if (!strcmp(name, "cookie")) options.cookie = value;
    else if (!strcmp(name, "origin")) options.origin = value;
    else if (!strcmp(name, "sessions")) options.sessions = atoi(value);
    else if (!strcmp(name, "together")) options.together = atoi(value);
    else if (!strcmp(name, "size")) options.size = (size_t)atol(value);
    else if (!strcmp(name, "rate")) options.rate = atof(value);
    else if (!strcmp(name, "seconds")) options.seconds = atof(value);
    else if (!strcmp(name, "warm")) options.warm = atof(value);
    else if (!strcmp(name, "stream")) options.stream = value;
    else if (!strcmp(name, "pids")) read_pids(value, options.pids);
    else if (!strcmp(name, "beside")) read_pids(value, options.beside);
    else if (!strcmp(name, "upstream")) read_pids(value, options.upstream);
    else fail("there is no %s", name);
}

static void lost_patience(int signal) {
    (void)signal;
    static const char text[] = "load: nothing has come for 20 s\n";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(2);
    _exit(1);
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: load echo|open|setup|hold|stream|http name=value...\n"), 2;
    options.mode = argv[1];
    for (int i = 2; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) fail("%s: should be name=value", argv[i]);
        *value = 0;
        read_option(argv[i], value + 1);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGALRM, lost_patience);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdin, NULL, _IONBF, 0); /* a line that is left in a buffer would not wake epoll */
    poller = epoll_create1(EPOLL_CLOEXEC);
    int room = (options.sessions > options.together ? options.sessions : options.together) + 1;
    struct session *block = calloc((size_t)room, sizeof *block);
    all = calloc((size_t)room, sizeof *all);
    for (int i = 0; i < room; i++) all[i] = block + i, block[i].state = GONE;
    make_message();
    if (!strcmp(options.mode, "stream")) options.sessions = 0;
    if (options.stream) open_stream(options.stream);
    if (!strcmp(options.mode, "echo") || http()) run_echo();
    else if (!strcmp(options.mode, "open")) run_open();
    else if (!strcmp(options.mode, "setup")) run_setup();
    else if (!strcmp(options.mode, "hold")) run_hold();
    else if (!strcmp(options.mode, "stream")) measure();
    else fail("there is no such mode");
    close_all();
    return 0;
}
