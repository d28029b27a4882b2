/* The relay's hot path: connections of sessions, read and written without going through the event loop's transports.

   Hub      an epoll descriptor of its own, watched by the event loop as one; turn() serves what is ready on it
   Wire     a connection, in the shape of an asyncio transport: what Python code writes, pauses, closes
   Side     a Wire's protocol in a session. While nothing diverts it, what comes in is scanned and sent on to the
            other Wire here; everything else is its method data_received()
   Scanner  walks from frame header to frame header (RFC 6455, section 5.2); frames.py has it in Python

   accept() and connect() are the ways into it: fewer system calls than through the event loop.

   All of it runs in the thread of the event loop, with its lock held. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { READ_MAX = 64 * 1024, EVENTS = 128, PIECES = 8, HEAD_MAX = 16, NO_STATUS = 1005 };

/* Scanner */

typedef struct {
    PyObject_HEAD
    uint64_t bytes, data_frames, control_frames, moments;
    uint64_t skip; /* bytes of the frame under way that are still to come */
    double apart, next;
    PyObject *clock; /* NULL: the system's monotonic one */
    int close_code;
    uint8_t head_size;
    uint8_t head[HEAD_MAX]; /* a header cut short by the end of a read */
} Scanner;

/* The code in a Close frame, from its first bytes; -1 if more of them are needed. */
static int code_of(const uint8_t *start, size_t size)
{
    bool masked = start[1] & 0x80;
    unsigned length = start[1] & 0x7f;
    if (length < 2 || length > 125)
        return NO_STATUS;
    size_t at = masked ? 6 : 2;
    if (size < at + 2)
        return -1;
    int high = start[at], low = start[at + 1];
    if (masked) {
        high ^= start[2];
        low ^= start[3];
    }
    int code = high << 8 | low;
    return code ? code : NO_STATUS;
}

/* Counts the frame that starts here, and says how long it is altogether; 0 if more of its header is needed. */
static uint64_t frame_at(Scanner *self, const uint8_t *at, size_t size)
{
    if (size < 2)
        return 0;
    uint64_t length = at[1] & 0x7f, total;
    if (length < 126) {
        total = 2 + length;
    } else if (length == 126) {
        if (size < 4)
            return 0;
        total = 4 + (uint64_t)(at[2] << 8 | at[3]);
    } else {
        if (size < 10)
            return 0;
        length = 0;
        for (int i = 2; i < 10; i++)
            length = length << 8 | at[i];
        total = length > UINT64_MAX - 14 ? UINT64_MAX - 4 : length + 10;
    }
    if (at[1] & 0x80)
        total += 4;
    unsigned opcode = at[0] & 0x0f;
    if (opcode < 8) {
        self->data_frames++;
        return total;
    }
    if (opcode == 8 && !self->close_code) {
        int code = code_of(at, size);
        if (code < 0)
            return 0;
        self->close_code = code;
    }
    self->control_frames++;
    return total;
}

static void walk(Scanner *self, const uint8_t *data, size_t size)
{
    size_t at = 0;
    self->bytes += size;
    while (self->head_size) {
        if (at == size)
            return;
        self->head[self->head_size++] = data[at++];
        uint64_t total = frame_at(self, self->head, self->head_size);
        if (total) {
            self->skip = total - self->head_size;
            self->head_size = 0;
        }
    }
    for (;;) {
        if (self->skip >= size - at) {
            self->skip -= size - at;
            return;
        }
        at += self->skip;
        uint64_t total = frame_at(self, data + at, size - at);
        if (!total) {
            self->skip = 0;
            self->head_size = (uint8_t)(size - at);
            memcpy(self->head, data + at, self->head_size);
            return;
        }
        self->skip = total;
    }
}

/* Returns -1 with an exception if the clock it was given raises. */
static int scan(Scanner *self, const uint8_t *data, size_t size)
{
    uint64_t before = self->data_frames;
    walk(self, data, size);
    if (self->data_frames == before || self->apart < 0)
        return 0;
    double now;
    if (self->clock) {
        PyObject *told = PyObject_CallNoArgs(self->clock);
        now = told ? PyFloat_AsDouble(told) : -1;
        Py_XDECREF(told);
        if (PyErr_Occurred())
            return -1;
    } else {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        now = (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
    }
    if (now >= self->next) {
        self->next = now + self->apart;
        self->moments++;
    }
    return 0;
}

static int scanner_init(Scanner *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"clock", "apart", NULL};
    PyObject *clock = Py_None;
    self->apart = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Od", names, &clock, &self->apart))
        return -1;
    if (clock != Py_None)
        Py_XSETREF(self->clock, Py_NewRef(clock));
    return 0;
}

static void scanner_dealloc(Scanner *self)
{
    Py_XDECREF(self->clock);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *scanner_feed(Scanner *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int failed = scan(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return failed ? NULL : PyLong_FromLong(self->close_code);
}

static PyObject *scanner_at_boundary(Scanner *self, void *unused)
{
    return PyBool_FromLong(!self->skip && !self->head_size);
}

static PyObject *scanner_get_head(Scanner *self, void *unused)
{
    return PyBytes_FromStringAndSize((const char *)self->head, self->head_size);
}

static int scanner_set_head(Scanner *self, PyObject *head, void *unused)
{
    if (!head || !PyBytes_Check(head) || PyBytes_GET_SIZE(head) >= HEAD_MAX) {
        PyErr_SetString(PyExc_ValueError, "the start of a header is at most 15 bytes");
        return -1;
    }
    self->head_size = (uint8_t)PyBytes_GET_SIZE(head);
    memcpy(self->head, PyBytes_AS_STRING(head), self->head_size);
    return 0;
}

static PyMemberDef scanner_members[] = {
    {"bytes", T_ULONGLONG, offsetof(Scanner, bytes), 0, NULL},
    {"data_frames", T_ULONGLONG, offsetof(Scanner, data_frames), 0, NULL},
    {"control_frames", T_ULONGLONG, offsetof(Scanner, control_frames), 0, NULL},
    {"moments", T_ULONGLONG, offsetof(Scanner, moments), 0, NULL},
    {"_skip", T_ULONGLONG, offsetof(Scanner, skip), 0, NULL},
    {"close_code", T_INT, offsetof(Scanner, close_code), 0, NULL},
    {NULL},
};
static PyGetSetDef scanner_getset[] = {
    {"at_boundary", (getter)scanner_at_boundary, NULL, NULL, NULL},
    {"_head", (getter)scanner_get_head, (setter)scanner_set_head, NULL, NULL},
    {NULL},
};
static PyMethodDef scanner_methods[] = {
    {"feed", (PyCFunction)scanner_feed, METH_O, NULL},
    {NULL},
};
static PyTypeObject ScannerType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway._wire.Scanner",
    .tp_basicsize = sizeof(Scanner),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)scanner_init,
    .tp_dealloc = (destructor)scanner_dealloc,
    .tp_members = scanner_members,
    .tp_getset = scanner_getset,
    .tp_methods = scanner_methods,
};

/* Hub and Wire */

typedef struct {
    PyObject_HEAD
    int epoll;
    bool in_turn;
    Py_ssize_t wires;
    PyObject *loop;  /* NULL while there is no wire */
    PyObject *ended; /* wires that left during a turn: its events may still name them */
    PyObject *losses; /* and those of them whose protocols are to be told at its end: wire, error, wire, ... */
    uint8_t *buffer;
} Hub;

typedef struct {
    PyObject_HEAD
    Hub *hub;
    PyObject *protocol;
    uint8_t *out; /* what waits to be written: out_size bytes from out_at on */
    size_t out_at, out_size, out_room;
    size_t high, low;
    int fd;
    uint32_t watched; /* events that the hub watches */
    bool reading, closing, lost, connecting, full;
} Wire;

typedef struct {
    PyObject_HEAD
    PyObject *session, *scanner, *transport, *other, *divert;
} Side;

static PyTypeObject HubType, WireType, SideType;

static PyObject *str_call_soon, *str_call_exception_handler, *str_close_passed, *str_connection_lost,
    *str_connection_made, *str_data_received, *str_lost, *str_pause_writing, *str_resume_writing;

/* Says of an exception what the event loop says of one in a protocol, and ends the connection. */
static void wire_failed(Wire *self, const char *where);
static void wire_break(Wire *self, PyObject *error);

static PyObject *take_exception(void)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace)
        PyException_SetTraceback(value, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return value;
}

static PyObject *take_errno(int number)
{
    errno = number;
    PyErr_SetFromErrno(PyExc_OSError);
    return take_exception();
}

static void call(Wire *self, PyObject *name, PyObject *argument)
{
    PyObject *protocol = self->protocol;
    if (!protocol)
        return;
    Py_INCREF(protocol);
    PyObject *done = argument ? PyObject_CallMethodOneArg(protocol, name, argument)
                              : PyObject_CallMethodNoArgs(protocol, name);
    if (!done)
        wire_failed(self, PyUnicode_AsUTF8(name));
    Py_XDECREF(done);
    Py_DECREF(protocol);
}

static void unwatch(Wire *self)
{
    Hub *hub = self->hub;
    if (!self->watched)
        return;
    self->watched = 0;
    epoll_ctl(hub->epoll, EPOLL_CTL_DEL, self->fd, NULL);
    if (hub->in_turn && PyList_Append(hub->ended, (PyObject *)self) < 0)
        PyErr_Clear();
    Py_DECREF(self); /* whoever calls has one of its own */
}

/* Watch for what it wants now. A socket that nothing is wanted of is not watched at all: the kernel reports errors
   and hang-ups of all others over and over. */
static void watch(Wire *self)
{
    uint32_t wanted = 0;
    if (self->lost || self->fd < 0)
        return unwatch(self);
    if (self->connecting)
        wanted = EPOLLOUT;
    else {
        if (self->reading && !self->closing)
            wanted |= EPOLLIN;
        if (self->out_size)
            wanted |= EPOLLOUT;
    }
    if (wanted == self->watched)
        return;
    if (!wanted)
        return unwatch(self);
    struct epoll_event event = {.events = wanted, .data.ptr = self};
    int how = self->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(self->hub->epoll, how, self->fd, &event) < 0) {
        wire_break(self, take_errno(errno));
        return;
    }
    if (!self->watched)
        Py_INCREF(self);
    self->watched = wanted;
}

static void drop_out(Wire *self)
{
    PyMem_Free(self->out);
    self->out = NULL;
    self->out_at = self->out_size = self->out_room = 0;
}

/* Its end, told once the caller is done. error: stolen; NULL for none. */
static void wire_break(Wire *self, PyObject *error)
{
    if (self->lost) {
        Py_XDECREF(error);
        return;
    }
    Py_INCREF(self);
    self->closing = self->lost = true;
    drop_out(self);
    unwatch(self);
    Hub *hub = self->hub;
    if (hub->in_turn && !PyList_Append(hub->losses, (PyObject *)self)) {
        if (PyList_Append(hub->losses, error ? error : Py_None) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(error);
        Py_DECREF(self);
        return;
    }
    PyObject *lost = PyObject_GetAttr((PyObject *)self, str_lost);
    PyObject *soon = lost ? PyObject_CallMethodObjArgs(hub->loop, str_call_soon, lost, error ? error : Py_None, NULL) : NULL;
    if (!soon)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(soon);
    Py_XDECREF(lost);
    Py_XDECREF(error);
    Py_DECREF(self);
}

/* error: borrowed. */
static void say_failed(Hub *hub, Wire *self, const char *where, PyObject *error)
{
    PyObject *context = Py_BuildValue(
        "{s:N,s:O,s:O,s:O}", "message", PyUnicode_FromFormat("Fatal error: protocol.%s() call failed.", where),
        "exception", error, "transport", self, "protocol", self->protocol ? self->protocol : Py_None);
    PyObject *done = NULL;
    if (context && hub->loop)
        done = PyObject_CallMethodOneArg(hub->loop, str_call_exception_handler, context);
    else if (context)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    if (!done)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(done);
    Py_XDECREF(context);
}

static void wire_failed(Wire *self, const char *where)
{
    PyObject *error = take_exception();
    say_failed(self->hub, self, where, error);
    wire_break(self, error);
}

static int keep(Wire *self, const uint8_t *data, size_t size)
{
    if (self->out_at + self->out_size + size > self->out_room) {
        size_t room = self->out_size + size;
        room += self->out_size ? room / 2 : 0; /* it grows: not copied again for each piece */
        uint8_t *out = PyMem_Malloc(room);
        if (!out) {
            PyErr_NoMemory();
            return -1;
        }
        if (self->out_size)
            memcpy(out, self->out + self->out_at, self->out_size);
        PyMem_Free(self->out);
        self->out = out;
        self->out_room = room;
        self->out_at = 0;
    }
    memcpy(self->out + self->out_at + self->out_size, data, size);
    self->out_size += size;
    return 0;
}

static void wire_send(Wire *self, const uint8_t *data, size_t size)
{
    if (self->closing || !size)
        return;
    if (!self->out_size && !self->connecting) {
        ssize_t sent = send(self->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == (ssize_t)size)
            return;
        if (sent < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
                wire_break(self, take_errno(errno));
                return;
            }
            sent = 0;
        }
        data += sent;
        size -= (size_t)sent;
    }
    if (keep(self, data, size) < 0) {
        wire_failed(self, "write");
        return;
    }
    watch(self);
    if (self->out_size > self->high && !self->full) {
        self->full = true;
        call(self, str_pause_writing, NULL);
    }
}

static void wire_writable(Wire *self)
{
    if (self->connecting) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            wire_break(self, take_errno(error));
            return;
        }
        self->connecting = false;
        self->reading = true;
        call(self, str_connection_made, (PyObject *)self);
        if (self->lost)
            return;
    }
    if (self->out_size) {
        ssize_t sent = send(self->fd, self->out + self->out_at, self->out_size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
                wire_break(self, take_errno(errno));
            return;
        }
        self->out_at += (size_t)sent;
        self->out_size -= (size_t)sent;
    }
    if (!self->out_size)
        drop_out(self);
    watch(self);
    if (self->full && self->out_size <= self->low) {
        self->full = false;
        call(self, str_resume_writing, NULL);
    }
    if (!self->out_size && self->closing)
        wire_break(self, NULL);
}

static void wire_readable(Wire *self)
{
    uint8_t *buffer = self->hub->buffer;
    ssize_t size = recv(self->fd, buffer, READ_MAX, MSG_DONTWAIT);
    if (size < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            wire_break(self, take_errno(errno));
        return;
    }
    if (!size) {
        self->closing = true; /* after what waits to be written */
        if (self->out_size)
            watch(self);
        else
            wire_break(self, NULL);
        return;
    }
    Side *side = (Side *)self->protocol;
    if (side && PyObject_TypeCheck(side, &SideType) && (!side->divert || side->divert == Py_None) &&
        side->other && Py_TYPE(side->other) == &WireType && side->scanner &&
        PyObject_TypeCheck(side->scanner, &ScannerType)) {
        Scanner *scanner = (Scanner *)side->scanner;
        Py_INCREF(side);
        if (scan(scanner, buffer, (size_t)size) < 0)
            wire_failed(self, "data_received");
        else {
            wire_send((Wire *)side->other, buffer, (size_t)size);
            if (scanner->close_code && side->session) {
                PyObject *done = PyObject_CallMethodOneArg(side->session, str_close_passed, (PyObject *)scanner);
                if (!done)
                    wire_failed(self, "data_received");
                Py_XDECREF(done);
            }
        }
        Py_DECREF(side);
        return;
    }
    PyObject *data = PyBytes_FromStringAndSize((const char *)buffer, size);
    if (!data)
        wire_failed(self, "data_received");
    else
        call(self, str_data_received, data);
    Py_XDECREF(data);
}

static void lost_failed(Hub *self, Wire *wire)
{
    PyObject *error = take_exception();
    say_failed(self, wire, "connection_lost", error);
    Py_DECREF(error);
}

static PyObject *wire_lost(Wire *self, PyObject *error);

static PyObject *hub_turn(Hub *self, PyObject *unused)
{
    struct epoll_event events[EVENTS];
    if (self->epoll < 0)
        Py_RETURN_NONE;
    int count = epoll_wait(self->epoll, events, EVENTS, 0);
    Py_INCREF(self);
    self->in_turn = true;
    for (int i = 0; i < count; i++) {
        Wire *wire = events[i].data.ptr;
        uint32_t seen = events[i].events;
        Py_INCREF(wire);
        if (wire->watched & EPOLLOUT && seen & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            wire_writable(wire);
        if (wire->watched & EPOLLIN && seen & (EPOLLIN | EPOLLERR | EPOLLHUP))
            wire_readable(wire);
        Py_DECREF(wire);
    }
    self->in_turn = false;
    while (PyList_GET_SIZE(self->losses) > 1) {
        PyObject *losses = self->losses;
        self->losses = PyList_New(0);
        if (!self->losses) {
            self->losses = losses;
            break;
        }
        for (Py_ssize_t i = 0; i + 1 < PyList_GET_SIZE(losses); i += 2) {
            Wire *wire = (Wire *)PyList_GET_ITEM(losses, i);
            PyObject *done = wire_lost(wire, PyList_GET_ITEM(losses, i + 1));
            if (!done)
                lost_failed(self, wire);
            Py_XDECREF(done);
        }
        Py_DECREF(losses);
    }
    if (PyList_GET_SIZE(self->ended) && PyList_SetSlice(self->ended, 0, PY_SSIZE_T_MAX, NULL) < 0)
        PyErr_Clear();
    Py_DECREF(self);
    Py_RETURN_NONE;
}

static int hub_init(Hub *self, PyObject *args, PyObject *kwargs)
{
    self->epoll = -1;
    self->ended = PyList_New(0);
    self->losses = PyList_New(0);
    return self->ended && self->losses ? 0 : -1;
}

/* One wire more: the first one opens the hub. */
static int hub_join(Hub *self, PyObject *loop)
{
    if (self->wires && self->loop != loop) {
        PyErr_SetString(PyExc_RuntimeError, "this hub is of another event loop");
        return -1;
    }
    if (!self->wires) {
        if (!self->buffer)
            self->buffer = PyMem_Malloc(READ_MAX);
        if (!self->buffer) {
            PyErr_NoMemory();
            return -1;
        }
        self->epoll = epoll_create1(EPOLL_CLOEXEC);
        PyObject *turn = NULL, *done = NULL;
        if (self->epoll < 0)
            PyErr_SetFromErrno(PyExc_OSError);
        else if ((turn = PyObject_GetAttrString((PyObject *)self, "turn")))
            done = PyObject_CallMethod(loop, "add_reader", "iO", self->epoll, turn);
        Py_XDECREF(turn);
        if (!done) {
            if (self->epoll >= 0)
                close(self->epoll);
            self->epoll = -1;
            PyMem_Free(self->buffer);
            self->buffer = NULL;
            return -1;
        }
        Py_DECREF(done);
        self->loop = Py_NewRef(loop);
    }
    self->wires++;
    return 0;
}

/* One wire less: with the last one the hub is closed, and lets go of its event loop. */
static void hub_leave(Hub *self)
{
    if (--self->wires)
        return;
    PyObject *loop = self->loop;
    self->loop = NULL;
    PyObject *done = PyObject_CallMethod(loop, "remove_reader", "i", self->epoll);
    if (!done)
        PyErr_Clear(); /* the loop is closed */
    Py_XDECREF(done);
    Py_DECREF(loop);
    close(self->epoll);
    self->epoll = -1;
    if (!self->in_turn) {
        PyMem_Free(self->buffer);
        self->buffer = NULL;
    }
}

static void hub_dealloc(Hub *self)
{
    if (self->epoll >= 0)
        close(self->epoll);
    PyMem_Free(self->buffer);
    Py_XDECREF(self->ended);
    Py_XDECREF(self->losses);
    Py_XDECREF(self->loop);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef hub_methods[] = {
    {"turn", (PyCFunction)hub_turn, METH_NOARGS, NULL},
    {NULL},
};
static PyMemberDef hub_members[] = {
    {"wires", T_PYSSIZET, offsetof(Hub, wires), READONLY, NULL},
    {NULL},
};
static PyTypeObject HubType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway._wire.Hub",
    .tp_basicsize = sizeof(Hub),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)hub_init,
    .tp_dealloc = (destructor)hub_dealloc,
    .tp_methods = hub_methods,
    .tp_members = hub_members,
};

static int wire_init(Wire *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", "hub", "fd", "protocol", "connecting", NULL};
    PyObject *loop, *hub, *protocol;
    int fd, connecting = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!iO|p", names, &loop, &HubType, &hub, &fd, &protocol, &connecting))
        return -1;
    if (self->hub) {
        PyErr_SetString(PyExc_RuntimeError, "a wire is made once");
        return -1;
    }
    self->fd = -1;
    if (hub_join((Hub *)hub, loop) < 0)
        return -1;
    self->hub = (Hub *)Py_NewRef(hub);
    self->protocol = Py_NewRef(protocol);
    self->fd = fd;
    self->high = 65536;
    self->low = 16384;
    self->connecting = connecting;
    return 0;
}

/* Its protocol is told when it is connected: at once, where the peer is on this machine. */
static PyObject *wire_begin(Wire *self, PyObject *unused)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    if (self->connecting && !getpeername(self->fd, (struct sockaddr *)&peer, &size)) {
        self->connecting = false;
        self->reading = true;
        call(self, str_connection_made, (PyObject *)self);
    }
    if (!self->lost)
        watch(self);
    Py_RETURN_NONE;
}

/* Its place is given back: whatever happens, only once. */
static void wire_release(Wire *self)
{
    Hub *hub = self->hub;
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
    self->hub = NULL;
    drop_out(self);
    if (hub) {
        hub_leave(hub);
        Py_DECREF(hub);
    }
}

static PyObject *wire_lost(Wire *self, PyObject *error)
{
    if (self->fd < 0)
        Py_RETURN_NONE;
    PyObject *protocol = self->protocol;
    self->protocol = NULL; /* no cycle is left for the collector */
    PyObject *done = protocol ? PyObject_CallMethodOneArg(protocol, str_connection_lost, error) : Py_NewRef(Py_None);
    Py_XDECREF(protocol);
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    wire_release(self);
    PyErr_Restore(type, value, trace);
    return done;
}

static PyObject *wire_write(Wire *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    wire_send(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

/* Head and body as one system call where they can be. */
static PyObject *wire_writelines(Wire *self, PyObject *pieces)
{
    PyObject *list = PySequence_Fast(pieces, "writelines() takes a sequence of bytes");
    if (!list)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(list), at = 0;
    PyObject **items = PySequence_Fast_ITEMS(list);
    struct iovec vector[PIECES];
    size_t total = 0;
    ssize_t sent = 0;
    if (count && count <= PIECES && !self->out_size && !self->connecting && !self->closing) {
        for (; at < count && PyBytes_Check(items[at]); at++) {
            vector[at].iov_base = PyBytes_AS_STRING(items[at]);
            total += vector[at].iov_len = (size_t)PyBytes_GET_SIZE(items[at]);
        }
        if (at == count && total) {
            struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)count};
            sent = sendmsg(self->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
                wire_break(self, take_errno(errno));
            if (sent < 0)
                sent = 0;
        }
    }
    for (at = 0; at < count; at++) {
        Py_buffer view;
        if (PyObject_GetBuffer(items[at], &view, PyBUF_SIMPLE) < 0) {
            Py_DECREF(list);
            return NULL;
        }
        if (sent < view.len)
            wire_send(self, (uint8_t *)view.buf + sent, (size_t)(view.len - sent));
        sent = sent > view.len ? sent - view.len : 0;
        PyBuffer_Release(&view);
    }
    Py_DECREF(list);
    Py_RETURN_NONE;
}

static PyObject *wire_close(Wire *self, PyObject *unused)
{
    if (!self->closing) {
        self->closing = true;
        if (self->out_size && !self->connecting)
            watch(self);
        else
            wire_break(self, NULL);
    }
    Py_RETURN_NONE;
}

static PyObject *wire_abort(Wire *self, PyObject *unused)
{
    wire_break(self, NULL);
    Py_RETURN_NONE;
}

static PyObject *wire_is_closing(Wire *self, PyObject *unused)
{
    return PyBool_FromLong(self->closing);
}

static PyObject *wire_pause_reading(Wire *self, PyObject *unused)
{
    self->reading = false;
    if (!self->lost)
        watch(self);
    Py_RETURN_NONE;
}

static PyObject *wire_resume_reading(Wire *self, PyObject *unused)
{
    self->reading = true;
    if (!self->lost)
        watch(self);
    Py_RETURN_NONE;
}

static PyObject *wire_is_reading(Wire *self, PyObject *unused)
{
    return PyBool_FromLong(self->reading && !self->closing);
}

static PyObject *wire_get_write_buffer_size(Wire *self, PyObject *unused)
{
    return PyLong_FromSize_t(self->out_size);
}

static PyObject *wire_set_write_buffer_limits(Wire *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"high", "low", NULL};
    Py_ssize_t high = 65536, low = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|nn", names, &high, &low))
        return NULL;
    if (low < 0)
        low = high / 4;
    if (high < low) {
        PyErr_SetString(PyExc_ValueError, "high must be at least low");
        return NULL;
    }
    self->high = (size_t)high;
    self->low = (size_t)low;
    Py_RETURN_NONE;
}

static PyObject *wire_get_protocol(Wire *self, PyObject *unused)
{
    return Py_NewRef(self->protocol ? self->protocol : Py_None);
}

static PyObject *wire_set_protocol(Wire *self, PyObject *protocol)
{
    if (!self->lost || self->protocol)
        Py_XSETREF(self->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

static PyObject *wire_fileno(Wire *self, PyObject *unused)
{
    return PyLong_FromLong(self->fd);
}

/* As the socket module has it: (host, port), with two numbers more for IPv6. */
static PyObject *address(const struct sockaddr_storage *found)
{
    char host[INET6_ADDRSTRLEN];
    if (found->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)found;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        return Py_BuildValue("si", host, ntohs(in->sin_port));
    }
    if (found->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)found;
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        return Py_BuildValue("siII", host, ntohs(in->sin6_port), ntohl(in->sin6_flowinfo), in->sin6_scope_id);
    }
    return PyUnicode_FromString("");
}

static PyObject *wire_getpeername(Wire *self, PyObject *unused)
{
    struct sockaddr_storage found = {0};
    socklen_t size = sizeof found;
    if (getpeername(self->fd, (struct sockaddr *)&found, &size) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return address(&found);
}

static PyObject *wire_getsockname(Wire *self, PyObject *unused)
{
    struct sockaddr_storage found = {0};
    socklen_t size = sizeof found;
    if (getsockname(self->fd, (struct sockaddr *)&found, &size) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return address(&found);
}

static PyObject *wire_get_extra_info(Wire *self, PyObject *args)
{
    const char *name;
    PyObject *fallback = Py_None;
    if (!PyArg_ParseTuple(args, "s|O", &name, &fallback))
        return NULL;
    if (!strcmp(name, "socket") && self->fd >= 0)
        return Py_NewRef((PyObject *)self); /* it has fileno() */
    return Py_NewRef(fallback);
}

static int wire_traverse(Wire *self, visitproc visit, void *arg)
{
    Py_VISIT(self->protocol);
    return 0;
}

static int wire_clear(Wire *self)
{
    Py_CLEAR(self->protocol);
    return 0;
}

static void wire_dealloc(Wire *self)
{
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->protocol);
    wire_release(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef wire_methods[] = {
    {"write", (PyCFunction)wire_write, METH_O, NULL},
    {"writelines", (PyCFunction)wire_writelines, METH_O, NULL},
    {"getpeername", (PyCFunction)wire_getpeername, METH_NOARGS, NULL},
    {"getsockname", (PyCFunction)wire_getsockname, METH_NOARGS, NULL},
    {"close", (PyCFunction)wire_close, METH_NOARGS, NULL},
    {"abort", (PyCFunction)wire_abort, METH_NOARGS, NULL},
    {"is_closing", (PyCFunction)wire_is_closing, METH_NOARGS, NULL},
    {"pause_reading", (PyCFunction)wire_pause_reading, METH_NOARGS, NULL},
    {"resume_reading", (PyCFunction)wire_resume_reading, METH_NOARGS, NULL},
    {"is_reading", (PyCFunction)wire_is_reading, METH_NOARGS, NULL},
    {"get_write_buffer_size", (PyCFunction)wire_get_write_buffer_size, METH_NOARGS, NULL},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))wire_set_write_buffer_limits, METH_VARARGS | METH_KEYWORDS, NULL},
    {"get_protocol", (PyCFunction)wire_get_protocol, METH_NOARGS, NULL},
    {"set_protocol", (PyCFunction)wire_set_protocol, METH_O, NULL},
    {"get_extra_info", (PyCFunction)wire_get_extra_info, METH_VARARGS, NULL},
    {"fileno", (PyCFunction)wire_fileno, METH_NOARGS, NULL},
    {"begin", (PyCFunction)wire_begin, METH_NOARGS, NULL},
    {"_lost", (PyCFunction)wire_lost, METH_O, NULL},
    {NULL},
};
static PyTypeObject WireType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway._wire.Wire",
    .tp_basicsize = sizeof(Wire),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)wire_init,
    .tp_dealloc = (destructor)wire_dealloc,
    .tp_traverse = (traverseproc)wire_traverse,
    .tp_clear = (inquiry)wire_clear,
    .tp_methods = wire_methods,
};

/* Side */

static int side_traverse(Side *self, visitproc visit, void *arg)
{
    Py_VISIT(self->session);
    Py_VISIT(self->scanner);
    Py_VISIT(self->transport);
    Py_VISIT(self->other);
    Py_VISIT(self->divert);
    return 0;
}

static int side_clear(Side *self)
{
    Py_CLEAR(self->session);
    Py_CLEAR(self->scanner);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->other);
    Py_CLEAR(self->divert);
    return 0;
}

static void side_dealloc(Side *self)
{
    PyObject_GC_UnTrack(self);
    side_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef side_members[] = {
    {"session", T_OBJECT, offsetof(Side, session), 0, NULL},
    {"scanner", T_OBJECT, offsetof(Side, scanner), 0, NULL},
    {"transport", T_OBJECT, offsetof(Side, transport), 0, NULL},
    {"other", T_OBJECT, offsetof(Side, other), 0, NULL},
    {"divert", T_OBJECT, offsetof(Side, divert), 0, NULL},
    {NULL},
};
static PyTypeObject SideType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gateway._wire.Side",
    .tp_basicsize = sizeof(Side),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)side_dealloc,
    .tp_traverse = (traverseproc)side_traverse,
    .tp_clear = (inquiry)side_clear,
    .tp_members = side_members,
};

/* Ways in */

static PyObject *wire_accept(PyObject *module, PyObject *listening)
{
    long from = PyLong_AsLong(listening);
    if (from < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "no descriptor");
    int fd = accept4((int)from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        return PyLong_FromLong(fd);
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ECONNABORTED)
        Py_RETURN_NONE;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *wire_connect(PyObject *module, PyObject *args)
{
    const char *host;
    int port;
    PyObject *options;
    struct sockaddr_storage to = {0};
    socklen_t size;
    if (!PyArg_ParseTuple(args, "siO!", &host, &port, &PyTuple_Type, &options))
        return NULL;
    struct sockaddr_in *four = (struct sockaddr_in *)&to;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&to;
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        size = sizeof *four;
    } else if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        size = sizeof *six;
    } else
        Py_RETURN_NONE; /* a name, to be looked up */
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(options); i++) {
        int level, option, value;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(options, i), "iii", &level, &option, &value)) {
            close(fd);
            return NULL;
        }
        setsockopt(fd, level, option, &value, sizeof value);
    }
    if (connect(fd, (struct sockaddr *)&to, size) < 0 && errno != EINPROGRESS) {
        PyErr_SetFromErrno(PyExc_OSError);
        close(fd);
        return NULL;
    }
    return PyLong_FromLong(fd);
}

static PyMethodDef functions[] = {
    {"accept", (PyCFunction)wire_accept, METH_O, "A connection that waits at this listening descriptor, or None."},
    {"connect", (PyCFunction)wire_connect, METH_VARARGS,
     "(host, port, options of the socket) -> a descriptor that connects; None if host is a name."},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "gateway._wire", .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit__wire(void)
{
    struct { PyObject **at; const char *name; } names[] = {
        {&str_call_soon, "call_soon"}, {&str_call_exception_handler, "call_exception_handler"},
        {&str_close_passed, "close_passed"}, {&str_connection_lost, "connection_lost"},
        {&str_connection_made, "connection_made"}, {&str_data_received, "data_received"}, {&str_lost, "_lost"},
        {&str_pause_writing, "pause_writing"}, {&str_resume_writing, "resume_writing"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!(*names[i].at = PyUnicode_InternFromString(names[i].name)))
            return NULL;
    PyObject *made = PyModule_Create(&module);
    if (!made)
        return NULL;
    PyTypeObject *types[] = {&ScannerType, &HubType, &WireType, &SideType};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(made, types[i]) < 0)
            return NULL;
    return made;
}
