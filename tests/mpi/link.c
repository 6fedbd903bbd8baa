/* A link between two network interfaces, which it makes: of a rate, and a latency in each
 * direction, as tc's netem has them where the kernel does.
 *
 *     link left right 125e6 1e-3 &      # bytes a second, seconds
 *     ip link set left netns here
 *
 * Runs until it is killed; needs root. */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BYTES = 9000, MOST_PACKETS = 512 };

typedef struct packet {
    double due; /* when it arrives */
    size_t n;
    char bytes[MOST_BYTES];
} packet;

/* One direction: packets under way, in a ring. */
typedef struct direction {
    int from, to;
    packet *ring;
    unsigned first, n;
    double free_at; /* the sender's end, from when on */
} direction;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int open_interface(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int file = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (file >= 0 && ioctl(file, TUNSETIFF, &request) == 0) return file;
    perror(name);
    exit(1);
}

/* Takes what has come, as far as there is room; the rest waits in the kernel, which loses what is
 * too much. */
static void take(direction *d, double rate, double latency) {
    while (d->n < MOST_PACKETS) {
        packet *p = &d->ring[(d->first + d->n) % MOST_PACKETS];
        ssize_t n = read(d->from, p->bytes, MOST_BYTES);
        if (n <= 0) return;
        double t = now();
        d->free_at = (d->free_at > t ? d->free_at : t) + (double)n / rate;
        p->due = d->free_at + latency;
        p->n = (size_t)n;
        d->n++;
    }
}

/* Hands over what has arrived; seconds until the next one does. */
static double give(direction *d) {
    while (d->n > 0) {
        packet *p = &d->ring[d->first];
        double left = p->due - now();
        if (left > 0) return left;
        if (write(d->to, p->bytes, p->n) < 0) p->n = 0; /* an interface that is down loses it */
        d->first = (d->first + 1) % MOST_PACKETS;
        d->n--;
    }
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "link INTERFACE INTERFACE BYTES_S SECONDS\n");
        return 2;
    }
    int ends[] = {open_interface(argv[1]), open_interface(argv[2])};
    double rate = atof(argv[3]), latency = atof(argv[4]);
    static packet rings[2][MOST_PACKETS];
    direction ways[] = {{.from = ends[0], .to = ends[1], .ring = rings[0]},
                        {.from = ends[1], .to = ends[0], .ring = rings[1]}};
    for (;;) {
        double left = 1;
        for (int i = 0; i < 2; i++) {
            take(&ways[i], rate, latency);
            double next = give(&ways[i]);
            left = next < left ? next : left;
        }
        struct pollfd files[2];
        for (int i = 0; i < 2; i++) {
            files[i] = (struct pollfd){ends[i], ways[i].n < MOST_PACKETS ? POLLIN : 0, 0};
        }
        struct timespec pause = {left >= 1, left >= 1 ? 0 : (long)(left * 1e9)};
        ppoll(files, 2, &pause, NULL);
    }
}
