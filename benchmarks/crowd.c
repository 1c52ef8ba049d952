/*
 * crowd: thousands of WebSocket viewers in one thread, and those who write to them.
 *
 * Opens connections, publishes events at intended moments over some of them, and sees for every connection whether
 * every event arrived, once and in order, and how long after its intended moment. Driven line by line over standard
 * input by crowd.py, which also says what the lines and the answers mean; ends when that closes. One thread, one epoll
 * set that tells each readiness once, no parsing beyond frame headers and the mark of each event, so that it costs a fraction
 * of what any server does.
 *
 * Bounds: connections as many as asked for, one unfinished frame of at most 4 MiB each. A peer's frame above that, or
 * one that is masked, ends its connection and counts as lost.
 *
 * Source: RFC 6455; docs/protocol.md.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES (8u << 20)
#define FRAME_BYTES_MAX (4u << 20)
#define READ_BYTES (2 << 20)
#define FRAME_SENT_MAX 16384u
#define READY_MAX 256
#define BUCKETS 2304
#define COMPLAINTS_MAX 3
/* The key is always this one, so that its answer is known beforehand (RFC 6455 1.3). */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
/* An event's mark: '~', its number in 8 hexadecimal digits, its intended moment in microseconds in 12. */
#define MARK_BYTES 21
/* [{"re": 1, "ok": in MessagePack. */
#define JOINED_BINARY "\x91\x82\xa2re\x01\xa2ok"

enum state { WAITING, CONNECTING, SHAKING, JOINING, JOINED, LOST };
enum mode { LIVEROOM, PLAIN, SOCKETIO };

struct connection {
    int fd;
    uint8_t state;
    uint8_t publishes;
    uint8_t listens;
    uint8_t binary;     /* joins in MessagePack */
    uint32_t next;      /* number of the event that must come next */
    uint32_t got;       /* events of this run */
    uint64_t due_us;    /* when its join was due */
    uint8_t *held;      /* an unfinished frame */
    uint32_t held_bytes, held_room;
};

static const char *host = "127.0.0.1";
static int port;
static enum mode mode = PLAIN;
static const char *path = "/", *publish_path = "/", *subprotocol = "", *binary_subprotocol = "", *joins_file = "";
static uint32_t viewers, publishers;
static int publishers_listen;
static char template[8192];
static uint32_t event_bytes = 200;

static struct connection *all;
static uint32_t total, opened;
static struct join { char *text; size_t bytes; } *joins;
static int epoll_fd, timer_fd;
static uint8_t *buffer;

static uint32_t joined, lost, last_close_code;
static uint64_t join_delays[BUCKETS];

/* The run under way. */
static int running;
static uint32_t numbered, run_first, run_events, run_published, run_complete, listeners, publisher_turn;
static uint64_t run_start_us, run_interval_ns, run_received, run_gaps, run_repeats, run_late, run_frames, run_bytes;
static uint64_t run_replies, run_errors, run_blocked, run_last_us;
static uint64_t delays[BUCKETS], lags[BUCKETS], reply_delays[BUCKETS];

static uint64_t now_us(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000u + (uint64_t)at.tv_nsec / 1000u;
}

static uint64_t cpu_us(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000u +
           (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static void fail(const char *what)
{
    fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Says what a server has against us, the first few times. */
static void complain(const char *what, const uint8_t *text, size_t bytes)
{
    static int times;
    if (times++ < COMPLAINTS_MAX)
        fprintf(stderr, "crowd: %s: %.*s\n", what, (int)(bytes < 300 ? bytes : 300), (const char *)text);
}

/* Buckets of 1/64 of a power of two; crowd.py knows the same rule. */
static void count(uint64_t *histogram, uint64_t from, uint64_t to)
{
    uint64_t us = to > from ? to - from : 0;
    uint32_t bucket;
    if (us < 128) {
        bucket = (uint32_t)us;
    } else {
        uint32_t shift = (uint32_t)(63 - __builtin_clzll(us)) - 6;
        bucket = shift * 64 + (uint32_t)(us >> shift);
    }
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static void print_histogram(const char *name, const uint64_t *histogram)
{
    const char *comma = "";
    printf(",\"%s\":[", name);
    for (uint32_t i = 0; i < BUCKETS; i++) {
        if (histogram[i]) {
            printf("%s[%u,%" PRIu64 "]", comma, i, histogram[i]);
            comma = ",";
        }
    }
    printf("]");
}

/* --- sending ------------------------------------------------------------------------------------------------ */

static void lose(struct connection *c)
{
    if (c->state == LOST)
        return;
    if (c->state == JOINED && c->listens)
        listeners--;
    /* A reset: thousands of connections in TIME_WAIT would use up the ports of the next round. */
    struct linger reset = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(c->fd);
    free(c->held);
    c->held = NULL;
    c->held_bytes = c->held_room = 0;
    c->state = LOST;
    lost++;
}

/* Send one frame, masked with zeros. Returns 0 if the kernel did not take it whole. */
static int send_frame(struct connection *c, uint8_t opcode, const char *payload, size_t bytes)
{
    uint8_t frame[FRAME_SENT_MAX + 14];
    size_t head = 2;
    if (bytes > FRAME_SENT_MAX)
        return 0;
    frame[0] = 0x80 | opcode;
    if (bytes < 126) {
        frame[1] = 0x80 | (uint8_t)bytes;
    } else {
        frame[1] = 0x80 | 126;
        frame[2] = (uint8_t)(bytes >> 8);
        frame[3] = (uint8_t)bytes;
        head = 4;
    }
    memset(frame + head, 0, 4);
    memcpy(frame + head + 4, payload, bytes);
    return send(c->fd, frame, head + 4 + bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)(head + 4 + bytes);
}

static void publish(uint64_t due)
{
    char text[sizeof template + 4096];
    size_t at = 0;
    uint32_t number = numbered;
    struct connection *c = &all[publisher_turn];
    for (const char *t = template; *t && at < sizeof template - 32; t++) {
        if (*t == '@') {
            at += (size_t)sprintf(text + at, "%u", number + 1);
        } else if (*t == '#') {
            at += (size_t)sprintf(text + at, "~%08x%012" PRIx64, number, due);
            for (uint32_t i = MARK_BYTES; i < event_bytes && i < 4000; i++)
                text[at++] = (char)('a' + (i * 7 + number) % 26);
        } else {
            text[at++] = *t;
        }
    }
    publisher_turn = (publisher_turn + 1) % publishers;
    numbered++;
    if (c->state != JOINED || !send_frame(c, 1, text, at))
        run_blocked++;
}

static void publish_due(uint64_t now)
{
    while (running && run_published < run_events) {
        uint64_t due = run_start_us + (uint64_t)run_published * run_interval_ns / 1000u;
        if (due > now)
            return;
        publish(due);
        count(lags, due, now_us());
        run_published++;
    }
}

/* --- receiving ---------------------------------------------------------------------------------------------- */

static uint64_t hex(const uint8_t *digits, int length)
{
    uint64_t value = 0;
    for (int i = 0; i < length; i++) {
        uint8_t d = digits[i];
        value = value << 4 | (uint64_t)(d <= '9' ? d - '0' : d - 'a' + 10);
    }
    return value;
}

static int starts(const uint8_t *payload, size_t bytes, const char *prefix)
{
    size_t length = strlen(prefix);
    return bytes >= length && memcmp(payload, prefix, length) == 0;
}

static void now_joined(struct connection *c, uint64_t now)
{
    c->state = JOINED;
    c->next = numbered;
    joined++;
    if (c->listens)
        listeners++;
    count(join_delays, c->due_us, now);
}

static void take_replies(const uint8_t *payload, size_t bytes, uint64_t now)
{
    const uint8_t *at = payload, *end = payload + bytes;
    while ((at = memmem(at, (size_t)(end - at), "{\"re\":", 6)) != NULL) {
        at += 6;
        uint32_t id = (uint32_t)strtoul((const char *)at, NULL, 10);
        const uint8_t *comma = memchr(at, ',', (size_t)(end - at));
        if (comma && starts(comma, (size_t)(end - comma), ",\"err\"")) {
            complain("refused", payload, bytes);
            run_errors++;
        }
        if (id > run_first && id <= run_first + run_events) {
            run_replies++;
            count(reply_delays, run_start_us + (uint64_t)(id - 1 - run_first) * run_interval_ns / 1000u, now);
        }
    }
}

static void take_events(struct connection *c, const uint8_t *payload, size_t bytes, uint64_t now)
{
    const uint8_t *at = payload, *end = payload + bytes;
    uint32_t here = 0;
    while ((at = memchr(at, '~', (size_t)(end - at))) != NULL && end - at >= MARK_BYTES) {
        uint32_t number = (uint32_t)hex(at + 1, 8);
        uint64_t due = hex(at + 9, 12);
        at += MARK_BYTES;
        if (number < run_first) {
            run_late++;
            continue;
        }
        if (number < c->next) {
            run_repeats++;
            continue;
        }
        run_gaps += number - c->next;
        c->next = number + 1;
        here++;
        count(delays, due, now);
        if (++c->got == run_events)
            run_complete++;
    }
    if (here) {
        run_received += here;
        run_frames++;
        run_bytes += bytes;
        run_last_us = now;
    }
}

static void take_frame(struct connection *c, uint8_t opcode, const uint8_t *payload, size_t bytes, uint64_t now)
{
    if (opcode == 8) {
        last_close_code = bytes >= 2 ? (uint32_t)payload[0] << 8 | payload[1] : 1005;
        lose(c);
        return;
    }
    if (opcode == 9) {
        send_frame(c, 10, (const char *)payload, bytes);
        return;
    }
    if (opcode == 10)
        return;
    if (mode == SOCKETIO) {
        if (bytes == 1 && payload[0] == '2') {
            send_frame(c, 1, "3", 1);
            return;
        }
        if (c->state == JOINING) {
            if (payload[0] == '0')
                send_frame(c, 1, "40", 2);
            else if (starts(payload, bytes, "40"))
                now_joined(c, now);
            return;
        }
    } else if (mode == LIVEROOM) {
        if (c->state == JOINING) {
            if (starts(payload, bytes, c->binary ? JOINED_BINARY : "[{\"re\":1,\"ok\"")) {
                now_joined(c, now);
            } else {
                complain("refused", payload, bytes);
                lose(c);
            }
            return;
        }
        if (c->publishes && starts(payload, bytes, "[{\"re\":"))
            take_replies(payload, bytes, now);
    }
    if (c->listens && c->state == JOINED)
        take_events(c, payload, bytes, now);
}

/* Returns the bytes used up. */
static size_t take_handshake(struct connection *c, const uint8_t *data, size_t bytes, uint64_t now)
{
    const uint8_t *end = memmem(data, bytes, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end - data) + 4;
    if (!starts(data, bytes, "HTTP/1.1 101") || !memmem(data, head, ACCEPT, sizeof ACCEPT - 1)) {
        complain("handshake refused", data, bytes < 60 ? bytes : 60);
        lose(c);
        return bytes;
    }
    if (mode == PLAIN) {
        now_joined(c, now);
        return head;
    }
    c->state = JOINING;
    if (mode == LIVEROOM) {
        const struct join *join = &joins[c - all];
        if (!send_frame(c, c->binary ? 2 : 1, join->text, join->bytes))
            lose(c);
    }
    return head;
}

/* Returns 1 if there may be more to read: readiness is told once, and a short read means that nothing is left. */
static int receive(struct connection *c)
{
    size_t held = c->held_bytes, used = 0;
    if (held)
        memcpy(buffer, c->held, held);
    ssize_t got = recv(c->fd, buffer + held, READ_BYTES, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        lose(c);
        return 0;
    }
    uint64_t now = now_us();
    size_t bytes = held + (size_t)got;
    if (c->state == SHAKING) {
        used = take_handshake(c, buffer, bytes, now);
        if (c->state == SHAKING && bytes > 16384)
            lose(c);
    }
    while (c->state >= JOINING && c->state != LOST && bytes - used >= 2) {
        const uint8_t *f = buffer + used;
        uint64_t length = f[1] & 0x7f;
        size_t head = 2;
        if (length == 126) {
            head = 4;
            if (bytes - used < head)
                break;
            length = (uint64_t)f[2] << 8 | f[3];
        } else if (length == 127) {
            head = 10;
            if (bytes - used < head)
                break;
            length = 0;
            for (int i = 2; i < 10; i++)
                length = length << 8 | f[i];
        }
        if (f[1] & 0x80 || length > FRAME_BYTES_MAX) {
            lose(c);
            break;
        }
        if (bytes - used < head + length)
            break;
        take_frame(c, f[0] & 0x0f, f + head, length, now);
        used += head + length;
    }
    if (c->state == LOST)
        return 0;
    size_t left = bytes - used;
    if (left > c->held_room) {
        c->held_room = (uint32_t)left + 4096;
        c->held = realloc(c->held, c->held_room);
        if (!c->held)
            fail("memory");
    } else if (!left && c->held_room > 65536) {
        free(c->held);
        c->held = NULL;
        c->held_room = 0;
    }
    if (left)
        memcpy(c->held, buffer + used, left);
    c->held_bytes = (uint32_t)left;
    publish_due(now);
    return got == READ_BYTES;
}

/* --- opening ------------------------------------------------------------------------------------------------ */

static void shake_hands(struct connection *c)
{
    char request[1024];
    const char *where = c->publishes && !c->listens ? publish_path : path;
    const char *speaks = c->binary ? binary_subprotocol : subprotocol;
    int bytes = snprintf(request, sizeof request,
                         "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                         where, host, port, *speaks ? "Sec-WebSocket-Protocol: " : "", speaks, *speaks ? "\r\n" : "");
    c->state = SHAKING;
    if (send(c->fd, request, (size_t)bytes, MSG_NOSIGNAL) != bytes)
        lose(c);
}

static void start_connection(uint32_t number, uint64_t due)
{
    struct connection *c = &all[number];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event wanted = {.events = EPOLLOUT, .data.u32 = number};
    int one = 1;
    inet_pton(AF_INET, host, &to.sin_addr);
    c->due_us = due;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->state = CONNECTING;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
        lose(c);
        return;
    }
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &wanted) < 0)
        fail("epoll_ctl");
}

static void connected(uint32_t number)
{
    struct connection *c = &all[number];
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLET, .data.u32 = number};
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error) {
        lose(c);
        return;
    }
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &wanted);
    shake_hands(c);
}

/* --- the loop ----------------------------------------------------------------------------------------------- */

#define TIMER UINT32_MAX
#define INPUT (UINT32_MAX - 1)

static void arm(uint64_t at_us)
{
    struct itimerspec when = {.it_value = {(time_t)(at_us / 1000000u), (long)(at_us % 1000000u) * 1000 + 1}};
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Returns 1 when standard input has something to say. */
static int turn(void)
{
    struct epoll_event ready[READY_MAX];
    int input = 0, n = epoll_wait(epoll_fd, ready, READY_MAX, -1);
    if (n < 0 && errno != EINTR)
        fail("epoll_wait");
    for (int i = 0; i < n; i++) {
        uint32_t number = ready[i].data.u32;
        if (number == TIMER) {
            uint64_t expired;
            if (read(timer_fd, &expired, sizeof expired) < 0 && errno != EAGAIN)
                fail("timer");
            publish_due(now_us());
        } else if (number == INPUT) {
            input = 1;
        } else if (all[number].state == CONNECTING) {
            connected(number);
        } else {
            while (all[number].state != LOST && receive(&all[number]))
                ;
        }
    }
    return input;
}

static void open_more(uint32_t wanted, double per_s, uint32_t at_once, double patience_s)
{
    uint32_t first = opened, joined_before = joined, lost_before = lost;
    uint64_t began = now_us(), cpu_before = cpu_us(), until = began + (uint64_t)(patience_s * 1e6);
    memset(join_delays, 0, sizeof join_delays);
    if (wanted > total - opened)
        wanted = total - opened;
    for (;;) {
        uint64_t now = now_us(), next = now + 10000;
        while (opened < first + wanted) {
            uint32_t done = joined - joined_before + lost - lost_before;
            uint64_t due = now;
            if (per_s > 0) {
                due = began + (uint64_t)((opened - first) / per_s * 1e6);
                if (due > now) {
                    next = due;
                    break;
                }
            } else if (opened - first - done >= at_once) {
                break;
            }
            start_connection(opened++, due);
        }
        if (joined - joined_before + lost - lost_before >= wanted || now > until)
            break;
        arm(next);
        turn();
    }
    printf("{\"joined\":%u,\"failed\":%u,\"lost\":%u,\"last_close_code\":%u,\"wall_us\":%" PRIu64 ",\"cpu_us\":%" PRIu64,
           joined - joined_before, wanted - (joined - joined_before), lost - lost_before, last_close_code,
           now_us() - began, cpu_us() - cpu_before);
    print_histogram("delays", join_delays);
    printf("}\n");
}

static void run(double per_s, uint32_t events, double grace_s)
{
    uint64_t cpu_before = cpu_us(), until;
    uint32_t lost_before = lost;
    memset(delays, 0, sizeof delays);
    memset(lags, 0, sizeof lags);
    memset(reply_delays, 0, sizeof reply_delays);
    for (uint32_t i = 0; i < total; i++) {
        all[i].got = 0;
        all[i].next = numbered;
    }
    run_received = run_gaps = run_repeats = run_late = run_frames = run_bytes = run_replies = run_errors = 0;
    run_blocked = run_complete = run_published = 0;
    run_first = numbered;
    run_events = events;
    run_interval_ns = (uint64_t)(1e9 / per_s);
    run_start_us = run_last_us = now_us() + 20000;
    running = 1;
    until = run_start_us + (uint64_t)((double)events / per_s * 1e6) + (uint64_t)(grace_s * 1e6);
    for (;;) {
        uint64_t now = now_us();
        publish_due(now);
        int answered = mode != LIVEROOM || run_replies >= events - run_blocked;
        if (now > until || (run_published == events && answered && run_complete >= listeners))
            break;
        arm(run_published < events ? run_start_us + (uint64_t)run_published * run_interval_ns / 1000u : now + 1000);
        turn();
    }
    running = 0;
    printf("{\"events\":%u,\"listeners\":%u,\"received\":%" PRIu64 ",\"complete\":%u,\"gaps\":%" PRIu64
           ",\"repeats\":%" PRIu64 ",\"late\":%" PRIu64 ",\"frames\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"replies\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"blocked\":%" PRIu64
           ",\"lost\":%u,\"last_close_code\":%u,\"wall_us\":%" PRIu64 ",\"cpu_us\":%" PRIu64,
           events, listeners, run_received, run_complete, run_gaps, run_repeats, run_late, run_frames, run_bytes,
           run_replies, run_errors, run_blocked, lost - lost_before, last_close_code, now_us() - run_start_us,
           cpu_us() - cpu_before);
    print_histogram("delays", delays);
    print_histogram("lags", lags);
    print_histogram("reply_delays", reply_delays);
    printf("}\n");
}

static void read_joins(void)
{
    FILE *file = *joins_file ? fopen(joins_file, "r") : NULL;
    joins = calloc(total, sizeof *joins);
    if (*joins_file && !file)
        fail(joins_file);
    for (uint32_t i = 0; file && i < total; i++) {
        size_t room = 0;
        ssize_t bytes = getline(&joins[i].text, &room, file);
        if (bytes <= 0)
            fail("too few joins");
        joins[i].bytes = (size_t)bytes - 1;
        if (all[i].binary) {
            joins[i].bytes /= 2;
            for (size_t at = 0; at < joins[i].bytes; at++)
                joins[i].text[at] = (char)hex((const uint8_t *)joins[i].text + 2 * at, 2);
        }
    }
    if (file)
        fclose(file);
}

static void set_up(int count, char **words)
{
    for (int i = 1; i < count; i++) {
        char *value = strchr(words[i], '=');
        if (!value)
            continue;
        *value++ = 0;
        if (!strcmp(words[i], "host")) host = value;
        else if (!strcmp(words[i], "port")) port = atoi(value);
        else if (!strcmp(words[i], "path")) path = value;
        else if (!strcmp(words[i], "publish_path")) publish_path = value;
        else if (!strcmp(words[i], "subprotocol")) subprotocol = value;
        else if (!strcmp(words[i], "binary_subprotocol")) binary_subprotocol = value;
        else if (!strcmp(words[i], "joins")) joins_file = value;
        else if (!strcmp(words[i], "viewers")) viewers = (uint32_t)atoi(value);
        else if (!strcmp(words[i], "publishers")) publishers = (uint32_t)atoi(value);
        else if (!strcmp(words[i], "publishers_listen")) publishers_listen = atoi(value);
        else if (!strcmp(words[i], "mode"))
            mode = !strcmp(value, "liveroom") ? LIVEROOM : !strcmp(value, "socketio") ? SOCKETIO : PLAIN;
    }
}

int main(int arguments, char **words)
{
    char line[8192];
    struct epoll_event timer_event = {.events = EPOLLIN, .data.u32 = TIMER};
    struct epoll_event input_event = {.events = EPOLLIN, .data.u32 = INPUT};
    struct rlimit files;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    set_up(arguments, words);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    total = publishers_listen ? viewers : viewers + publishers;
    all = calloc(total, sizeof *all);
    buffer = malloc(BUFFER_BYTES + 1);
    if (!all || !buffer)
        fail("memory");
    for (uint32_t i = 0; i < total; i++) {
        all[i].publishes = i < publishers;
        all[i].listens = publishers_listen || i >= publishers;
        all[i].binary = *binary_subprotocol && i >= publishers;
    }
    read_joins();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &timer_event);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &input_event) < 0)
        fail("standard input must be a pipe");
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        double per_s, seconds;
        uint32_t number, at_once;
        if (!turn())
            continue;
        if (!fgets(line, sizeof line, stdin))
            return 0;
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, 0, NULL);
        if (sscanf(line, "open %u %lf %u %lf", &number, &per_s, &at_once, &seconds) == 4) {
            open_more(number, per_s, at_once, seconds);
        } else if (sscanf(line, "run %lf %u %lf", &per_s, &number, &seconds) == 3) {
            run(per_s, number, seconds);
        } else if (sscanf(line, "event_bytes %u", &number) == 1) {
            event_bytes = number;
            printf("{}\n");
        } else if (!strncmp(line, "template ", 9)) {
            line[strcspn(line, "\n")] = 0;
            snprintf(template, sizeof template, "%s", line + 9);
            printf("{}\n");
        } else {
            fprintf(stderr, "crowd: unknown command %s", line);
            return 2;
        }
        fflush(stdout);
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &input_event);
    }
}
