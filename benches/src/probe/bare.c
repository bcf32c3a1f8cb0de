/* The least that a probe can cost: one raw socket, one echo request at a time over loopback, received at once, with the
   kernel's stamps of both, and nothing made of them. Prints the microseconds of CPU time that each took.
   Arguments: how many. */
#include <arpa/inet.h>
#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

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

int main(int count_of_arguments, char **arguments) {
    long probes = count_of_arguments > 1 ? atol(arguments[1]) : 200000;
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
    double before = cpu_us();
    for (long probe = 0; probe < probes; probe++) {
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
    printf("%f\n", spent / (double)answered);
    return 0;
}
