/* The least that a probe can cost: one raw socket, one echo request at a time over loopback, received at once, with the
   kernel's stamps of both, and nothing made of them. Prints the microseconds of CPU time that each took, and how late the
   kernel woke it, 99th percentile, microseconds.
   Arguments: how many, and the microseconds from one to the next; 0 for as fast as it can. */
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

static unsigned short checksum(const unsigned short *words, int count) {
    unsigned sum = 0;
    for (int at = 0; at < count; at++) sum += words[at];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (unsigned short)~sum;
}

static double cpu_us(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return 1e6 * (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

/* Sleeps until then; returns how much later it woke. */
static double sleep_until(double then_us) {
    struct timespec then = {(time_t)(then_us / 1e6), 0};
    then.tv_nsec = (long)((then_us - 1e6 * (double)then.tv_sec) * 1e3);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
    return now_us() - then_us;
}

static int by_size(const void *one, const void *other) {
    double left = *(const double *)one, right = *(const double *)other;
    return (left > right) - (left < right);
}

int main(int count_of_arguments, char **arguments) {
    long probes = count_of_arguments > 1 ? atol(arguments[1]) : 200000;
    double every_us = count_of_arguments > 2 ? atof(arguments[2]) : 0;
    double *late_us = calloc((size_t)probes, sizeof *late_us);
    if (probes < 1 || !late_us) return 2;
    prctl(PR_SET_TIMERSLACK, 1);
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    if (raw < 0) {
        perror("a raw socket");
        return 1;
    }
    struct icmp_filter only_replies = {~(1u << ICMP_ECHOREPLY)};
    setsockopt(raw, SOL_RAW, ICMP_FILTER, &only_replies, sizeof only_replies);
    int stamps = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
                 SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID;
    setsockopt(raw, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f010001)};
    struct {
        struct icmphdr header;
        unsigned char payload[24];
    } echo;
    char bytes[256], control[256];
    struct iovec into = {bytes, sizeof bytes};
    long answered = 0;
    double before = cpu_us(), begun_us = now_us();
    for (long probe = 0; probe < probes; probe++) {
        if (every_us > 0) late_us[probe] = sleep_until(begun_us + every_us * (double)probe);
        memset(&echo, 0, sizeof echo);
        echo.header.type = ICMP_ECHO;
        echo.header.un.echo.sequence = htons((unsigned short)probe);
        echo.header.checksum = checksum((const unsigned short *)&echo, sizeof echo / 2);
        if (sendto(raw, &echo, sizeof echo, 0, (struct sockaddr *)&to, sizeof to) < 0) continue;
        struct msghdr reply = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        answered += recvmsg(raw, &reply, MSG_DONTWAIT) > 0;
        struct msghdr sent = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        recvmsg(raw, &sent, MSG_ERRQUEUE | MSG_DONTWAIT);
    }
    double spent = cpu_us() - before;
    if (answered * 100 < probes * 99) {
        fprintf(stderr, "only %ld of %ld were answered\n", answered, probes);
        return 1;
    }
    qsort(late_us, (size_t)probes, sizeof *late_us, by_size);
    printf("%f %f\n", spent / (double)answered, late_us[probes * 99 / 100]);
    return 0;
}
