#include "worker/kcp_socket.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/networks.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
  BATCH = KCP_SOCKET_BATCH,
  BATCHES_A_TURN = 4,     // so that a flood does not hold up the other clients of the worker
  RUN_BYTES_MAX = 64000,  // of one offload: the kernel takes 64 datagrams, and less than 64 KiB
};

// Room for the packet information of either family, and for the segment's size.
union control {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t))];
};

struct kcp_socket {
  int fd;
  struct event *readable;
  struct counters *counters;
  const struct kcp_socket_events *events;
  void *owner;
  bool segments;  // the kernel has segmentation offload

  // What is read is worked off before the next read, and may fill and send the batch meanwhile.
  struct batch {
    struct mmsghdr headers[BATCH];
    struct iovec parts[BATCH];
    union control controls[BATCH];
    struct kcp_peer peers[BATCH];
    uint8_t bytes[BATCH][KCP_DATAGRAM_MAX_BYTES];
  } in, out;
  size_t out_lens[BATCH];
  size_t out_count;
  size_t single_until;  // of these go one by one
};

socklen_t kcp_peer_address_len(const struct kcp_peer *peer) {
  return peer->address.any.sa_family == AF_INET6 ? sizeof peer->address.v6
                                                 : sizeof peer->address.v4;
}

void kcp_peer_key(const struct kcp_peer *peer, uint8_t key[KCP_PEER_KEY_BYTES]) {
  const in_port_t port = peer->address.any.sa_family == AF_INET6 ? peer->address.v6.sin6_port
                                                                 : peer->address.v4.sin_port;
  _Static_assert(NETWORK_ADDRESS_BYTES + sizeof port == KCP_PEER_KEY_BYTES, "both have room");
  network_address_of_socket(&peer->address.any, key);
  memcpy(key + NETWORK_ADDRESS_BYTES, &port, sizeof port);
}

// --- In ----------------------------------------------------------------------------------------

static void take_packet_information(struct msghdr *header, struct kcp_peer *peer) {
  for (struct cmsghdr *one = CMSG_FIRSTHDR(header); one; one = CMSG_NXTHDR(header, one)) {
    if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(one), sizeof info);
      peer->local.v4 = info.ipi_spec_dst;
    } else if (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_PKTINFO) {
      struct in6_pktinfo info;
      memcpy(&info, CMSG_DATA(one), sizeof info);
      peer->local.v6 = info.ipi6_addr;
      peer->interface = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
    }
  }
}

// What a call has written into the header is as before the call again.
static void renew(struct batch *in, size_t i) {
  struct msghdr *header = &in->headers[i].msg_hdr;
  memset(&in->peers[i], 0, sizeof in->peers[i]);
  header->msg_namelen = sizeof in->peers[i].address;
  header->msg_controllen = sizeof in->controls[i];
}

// Once: a call that brings two datagrams is to cost no more than they do.
static void prepare_reading(struct batch *in) {
  for (size_t i = 0; i < BATCH; i++) {
    in->parts[i] = (struct iovec){.iov_base = in->bytes[i], .iov_len = KCP_DATAGRAM_MAX_BYTES};
    in->headers[i].msg_hdr = (struct msghdr){.msg_name = &in->peers[i].address,
                                             .msg_iov = &in->parts[i],
                                             .msg_iovlen = 1,
                                             .msg_control = &in->controls[i]};
    renew(in, i);
  }
}

// Returns how many datagrams came.
static int read_batch(struct kcp_socket *socket) {
  int got = recvmmsg(socket->fd, socket->in.headers, BATCH, MSG_DONTWAIT, NULL);
  if (got <= 0) {
    return 0;
  }
  counters_add(socket->counters, COUNTER_KCP_READS, 1);
  counters_add(socket->counters, COUNTER_KCP_DATAGRAMS_IN, (uint64_t)got);
  if (got > 1 && socket->events->on_batch) {
    socket->events->on_batch(socket->in.peers, (size_t)got, socket->owner);
  }
  for (int i = 0; i < got; i++) {
    struct mmsghdr *header = &socket->in.headers[i];
    counters_add(socket->counters, COUNTER_KCP_BYTES_IN, header->msg_len);
    if (header->msg_hdr.msg_flags & MSG_TRUNC) {
      counters_add(socket->counters, COUNTER_KCP_MALFORMED, 1);
    } else {
      take_packet_information(&header->msg_hdr, &socket->in.peers[i]);
      socket->events->on_datagram(&socket->in.peers[i], socket->in.bytes[i], header->msg_len,
                                  socket->owner);
    }
    renew(&socket->in, (size_t)i);
  }
  return got;
}

static void on_readable(evutil_socket_t fd, short what, void *argument) {
  struct kcp_socket *socket = argument;
  (void)fd;
  (void)what;
  for (int i = 0; i < BATCHES_A_TURN && read_batch(socket) == BATCH; i++) {
  }
}

void kcp_socket_read(struct kcp_socket *socket, bool on) {
  if (on) {
    event_add(socket->readable, NULL);
  } else {
    event_del(socket->readable);
  }
}

// --- Out ---------------------------------------------------------------------------------------

static void add_control(struct msghdr *header, struct cmsghdr *one, int level, int type,
                        const void *value, size_t size) {
  one->cmsg_level = level;
  one->cmsg_type = type;
  one->cmsg_len = CMSG_LEN(size);
  memcpy(CMSG_DATA(one), value, size);
  header->msg_controllen += CMSG_SPACE(size);
}

// From where it leaves, and where it is cut.
static void set_controls(struct msghdr *header, union control *control, const struct kcp_peer *peer,
                         uint16_t segment) {
  memset(control, 0, sizeof *control);
  header->msg_control = control;
  struct cmsghdr *one = &control->align;
  if (peer->address.any.sa_family == AF_INET6) {
    const struct in6_pktinfo info = {.ipi6_addr = peer->local.v6, .ipi6_ifindex = peer->interface};
    add_control(header, one, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  } else {
    const struct in_pktinfo info = {.ipi_spec_dst = peer->local.v4};
    add_control(header, one, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  }
  if (segment > 0) {
    one = (struct cmsghdr *)(void *)(control->bytes + header->msg_controllen);
    add_control(header, one, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
  }
}

static bool same_peer(const struct kcp_peer *a, const struct kcp_peer *b) {
  // Both were zeroed before they were filled in.
  // NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c)
  return memcmp(a, b, sizeof *a) == 0;
}

// How many datagrams from the first on go as one: to one client, all but the last of one length.
static size_t run_length(const struct kcp_socket *socket, size_t first) {
  size_t end = first + 1;
  size_t most = RUN_BYTES_MAX / socket->out_lens[first];
  bool may_run = socket->segments && first >= socket->single_until;
  while (may_run && end < socket->out_count && end - first < most &&
         socket->out_lens[end] <= socket->out_lens[first] &&
         same_peer(&socket->out.peers[end], &socket->out.peers[first])) {
    bool is_shorter = socket->out_lens[end] < socket->out_lens[first];
    end++;
    if (is_shorter) {
      break;
    }
  }
  return end - first;
}

// Puts the datagrams from first on into headers, and their number into runs. Returns how many
// headers.
static unsigned prepare(struct kcp_socket *socket, size_t first, size_t runs[BATCH]) {
  unsigned count = 0;
  while (first < socket->out_count) {
    size_t run = run_length(socket, first);
    struct msghdr *header = &socket->out.headers[count].msg_hdr;
    for (size_t i = first; i < first + run; i++) {
      socket->out.parts[i] =
          (struct iovec){.iov_base = socket->out.bytes[i], .iov_len = socket->out_lens[i]};
    }
    *header = (struct msghdr){.msg_name = &socket->out.peers[first].address,
                              .msg_namelen = kcp_peer_address_len(&socket->out.peers[first]),
                              .msg_iov = &socket->out.parts[first],
                              .msg_iovlen = run};
    set_controls(header, &socket->out.controls[count], &socket->out.peers[first],
                 run > 1 ? (uint16_t)socket->out_lens[first] : 0);
    runs[count++] = run;
    first += run;
  }
  return count;
}

static void count_sent(struct kcp_socket *socket, size_t first, size_t run) {
  for (size_t i = first; i < first + run; i++) {
    counters_add(socket->counters, COUNTER_KCP_BYTES_OUT, socket->out_lens[i]);
  }
  counters_add(socket->counters, COUNTER_KCP_DATAGRAMS_OUT, run);
}

// Whether an error tells that this run can't be cut: the path to its client may take no datagrams
// of that length.
static bool is_about_run(int error) { return error == EINVAL || error == EMSGSIZE; }

void kcp_socket_flush(struct kcp_socket *socket) {
  size_t runs[BATCH];
  size_t done = 0;
  while (done < socket->out_count) {
    unsigned count = prepare(socket, done, runs);
    int sent = sendmmsg(socket->fd, socket->out.headers, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    counters_add(socket->counters, COUNTER_KCP_WRITES, 1);
    for (int i = 0; i < sent; i++) {
      count_sent(socket, done, runs[i]);
      done += runs[i];
    }
    if (sent > 0) {
      continue;
    }
    if (runs[0] > 1 && errno == EIO) {
      socket->segments = false;  // the network device has no offload
    } else if (runs[0] > 1 && is_about_run(errno)) {
      socket->single_until = done + runs[0];
    } else if (errno == EAGAIN || errno == ENOBUFS) {
      counters_add(socket->counters, COUNTER_KCP_DROPPED_SEND_BUFFER, socket->out_count - done);
      break;
    } else if (errno != EINTR) {  // it concerns this client alone, whose network is not there
      counters_add(socket->counters, COUNTER_KCP_DROPPED_SEND_BUFFER, runs[0]);
      done += runs[0];
    }
  }
  socket->out_count = 0;
  socket->single_until = 0;
}

void kcp_socket_send(struct kcp_socket *socket, const struct kcp_peer *peer, const uint8_t *bytes,
                     size_t len) {
  if (len == 0 || len > KCP_DATAGRAM_MAX_BYTES) {
    return;
  }
  if (socket->out_count == BATCH) {
    kcp_socket_flush(socket);
  }
  size_t i = socket->out_count++;
  memcpy(socket->out.bytes[i], bytes, len);
  socket->out_lens[i] = len;
  socket->out.peers[i] = *peer;
}

// --- The whole ---------------------------------------------------------------------------------

static bool has_segments(int fd) {
  int size = 0;
  socklen_t len = sizeof size;
  return getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, &len) == 0;
}

struct kcp_socket *kcp_socket_new(struct event_base *base, int fd, struct counters *counters,
                                  const struct kcp_socket_events *events, void *owner) {
  struct kcp_socket *socket = calloc(1, sizeof *socket);
  if (!socket) {
    close(fd);
    return NULL;
  }
  socket->fd = fd;
  socket->counters = counters;
  socket->events = events;
  socket->owner = owner;
  socket->segments = has_segments(fd);
  prepare_reading(&socket->in);
  socket->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, socket);
  if (!socket->readable) {
    kcp_socket_free(socket);
    return NULL;
  }
  return socket;
}

void kcp_socket_free(struct kcp_socket *socket) {
  if (!socket) {
    return;
  }
  if (socket->readable) {
    event_free(socket->readable);
  }
  close(socket->fd);
  free(socket);
}
