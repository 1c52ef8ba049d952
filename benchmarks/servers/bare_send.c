/*
 * bare_send: what one frame per event and viewer costs when there is nothing but the kernel.
 *
 * One thread, epoll; answers every handshake with the one answer that fits the crowd's fixed key, builds each frame
 * once and calls send() for every viewer. A connection to /publish writes: each of its text frames is an event. What
 * the kernel does not take at once is kept per viewer, at most 4 MiB, and sent when it does; above that the viewer is
 * dropped. Prints the port it listens on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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
#include <unistd.h>

#define CONNECTIONS_MAX 65536
#define UNSENT_MAX (4u << 20)

static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

struct connection {
    int shaken, publishes, viewer; /* viewer: place among the viewers, plus one */
    uint32_t bytes;                /* in data */
    uint8_t *data;                 /* a request or a publisher's frames, 64 KiB */
    uint8_t *unsent;
    uint32_t unsent_bytes, unsent_room;
};

static struct connection connections[CONNECTIONS_MAX];
static int viewers[CONNECTIONS_MAX], viewer_count, epoll_fd;

static void drop(int fd)
{
    struct connection *c = &connections[fd];
    if (c->viewer) {
        int last = viewers[--viewer_count];
        viewers[c->viewer - 1] = last;
        connections[last].viewer = c->viewer;
    }
    free(c->data);
    free(c->unsent);
    memset(c, 0, sizeof *c);
    close(fd);
}

static void want(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

static void send_to(int fd, const uint8_t *frame, size_t bytes)
{
    struct connection *c = &connections[fd];
    ssize_t sent = 0;
    if (!c->unsent_bytes) {
        sent = send(fd, frame, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == (ssize_t)bytes)
            return;
        if (sent < 0)
            sent = 0;
    }
    uint32_t left = (uint32_t)(bytes - (size_t)sent);
    if (c->unsent_bytes + left > UNSENT_MAX) {
        shutdown(fd, SHUT_RDWR);
        return;
    }
    if (c->unsent_bytes + left > c->unsent_room) {
        c->unsent_room = (c->unsent_bytes + left) * 2;
        c->unsent = realloc(c->unsent, c->unsent_room);
        if (!c->unsent)
            abort();
    }
    memcpy(c->unsent + c->unsent_bytes, frame + sent, left);
    if (!c->unsent_bytes)
        want(fd, EPOLLIN | EPOLLOUT);
    c->unsent_bytes += left;
}

static void send_on(int fd)
{
    struct connection *c = &connections[fd];
    ssize_t sent = send(fd, c->unsent, c->unsent_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0)
        return;
    c->unsent_bytes -= (uint32_t)sent;
    memmove(c->unsent, c->unsent + sent, c->unsent_bytes);
    if (!c->unsent_bytes)
        want(fd, EPOLLIN);
}

/* Sends the event as an array of one, as the engine does. */
static void publish(const uint8_t *event, size_t bytes)
{
    static uint8_t frame[65536 + 16];
    size_t head = 2, length = bytes + 2;
    frame[0] = 0x81;
    if (length < 126) {
        frame[1] = (uint8_t)length;
    } else {
        frame[1] = 126;
        frame[2] = (uint8_t)(length >> 8);
        frame[3] = (uint8_t)length;
        head = 4;
    }
    frame[head] = '[';
    memcpy(frame + head + 1, event, bytes);
    frame[head + 1 + bytes] = ']';
    for (int i = 0; i < viewer_count; i++)
        send_to(viewers[i], frame, head + length);
}

static void receive(int fd)
{
    struct connection *c = &connections[fd];
    ssize_t got = recv(fd, c->data + c->bytes, 65536 - c->bytes, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR))
            drop(fd);
        return;
    }
    c->bytes += (uint32_t)got;
    uint32_t used = 0;
    if (!c->shaken) {
        uint8_t *end = memmem(c->data, c->bytes, "\r\n\r\n", 4);
        if (!end)
            return;
        used = (uint32_t)(end - c->data) + 4;
        c->shaken = 1;
        c->publishes = c->bytes > 13 && !memcmp(c->data, "GET /publish ", 13);
        if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0) {
            drop(fd);
            return;
        }
        if (!c->publishes) {
            viewers[viewer_count++] = fd;
            c->viewer = viewer_count;
        }
    }
    while (c->publishes && c->bytes - used >= 2) {
        const uint8_t *f = c->data + used;
        uint32_t length = f[1] & 0x7f, head = 2;
        if (length == 126) {
            if (c->bytes - used < 4)
                break;
            length = (uint32_t)f[2] << 8 | f[3];
            head = 4;
        }
        /* The crowd's mask is zeros, so there is nothing to unmask. */
        if (length > 32768 || c->bytes - used < head + 4 + length)
            break;
        publish(f + head + 4, length);
        used += head + 4 + length;
    }
    c->bytes -= used;
    memmove(c->data, c->data + used, c->bytes);
}

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    struct rlimit files;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < CONNECTIONS_MAX ? files.rlim_max : CONNECTIONS_MAX;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener};
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 4096) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &size) < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &wanted) < 0) {
        perror("bare_send");
        return 1;
    }
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event ready[256];
        int n = epoll_wait(epoll_fd, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                int came;
                while ((came = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    struct epoll_event read = {.events = EPOLLIN, .data.fd = came};
                    setsockopt(came, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    memset(&connections[came], 0, sizeof connections[came]);
                    connections[came].data = malloc(65536);
                    if (!connections[came].data || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, came, &read) < 0)
                        return 1;
                }
                continue;
            }
            if (ready[i].events & EPOLLOUT)
                send_on(fd);
            if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(fd);
        }
    }
}
