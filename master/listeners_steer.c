#include "master/listeners_steer.h"

#include <linux/filter.h>
#include <stdint.h>
#include <sys/socket.h>

static int attach(int fd, struct sock_filter *code, size_t len) {
  const struct sock_fprog program = {.len = (unsigned short)len, .filter = code};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) == 0
             ? 0
             : ERROR_SYSTEM;
}

int listeners_steer_by_chance(int fd, size_t count) {
  struct sock_filter code[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM)},
      {BPF_ALU | BPF_MOD | BPF_K, 0, 0, (uint32_t)count},
      {BPF_RET | BPF_A, 0, 0, 0},
  };
  return attach(fd, code, sizeof code / sizeof *code);
}

// Bytes of the packet from its IP header on: the program itself begins behind that of UDP.
#define IP_BYTES(at) (uint32_t)(SKF_NET_OFF + (at))

// Adds the word of IPv6's source address at that place to the hash, which is in M[0].
#define ADD_WORD(at)                                                                 \
  {BPF_LD | BPF_MEM, 0, 0, 0}, {BPF_ALU | BPF_MUL | BPF_K, 0, 0, 0x85ebca6b},        \
      {BPF_MISC | BPF_TAX, 0, 0, 0}, {BPF_LD | BPF_W | BPF_ABS, 0, 0, IP_BYTES(at)}, \
      {BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0}, {                                        \
    BPF_ST, 0, 0, 0                                                                  \
  }

int listeners_steer_by_client(int fd, size_t count) {
  enum { VERSION = 0, V4_SOURCE = 12, V6_SOURCE = 8, V6_HEADER_BYTES = 40 };
  // The hash is in M[0], then comes the port, and everything is mixed. Of IPv6 with further headers
  // it is not the port that stands there, but something that hardly changes either.
  enum { V6_STEPS = 24, V6_PORT_STEPS = 1, V4_STEPS = 4 };
  struct sock_filter code[] = {
      {BPF_LD | BPF_B | BPF_ABS, 0, 0, IP_BYTES(VERSION)},
      {BPF_ALU | BPF_RSH | BPF_K, 0, 0, 4},
      {BPF_ST, 0, 0, 0},
      {BPF_JMP | BPF_JEQ | BPF_K, V6_STEPS + V6_PORT_STEPS + 1, 0, 4},
      ADD_WORD(V6_SOURCE),
      ADD_WORD(V6_SOURCE + 4),
      ADD_WORD(V6_SOURCE + 8),
      ADD_WORD(V6_SOURCE + 12),
      {BPF_LD | BPF_H | BPF_ABS, 0, 0, IP_BYTES(V6_HEADER_BYTES)},
      {BPF_JMP | BPF_JA, 0, 0, V4_STEPS},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, IP_BYTES(V4_SOURCE)},
      {BPF_ST, 0, 0, 0},
      {BPF_LDX | BPF_B | BPF_MSH, 0, 0, IP_BYTES(VERSION)},  // the length of its header
      {BPF_LD | BPF_H | BPF_IND, 0, 0, IP_BYTES(0)},
      // The port is in A.
      {BPF_ALU | BPF_MUL | BPF_K, 0, 0, 0x9e3779b1},
      {BPF_MISC | BPF_TAX, 0, 0, 0},
      {BPF_LD | BPF_MEM, 0, 0, 0},
      {BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0},
      {BPF_MISC | BPF_TAX, 0, 0, 0},
      {BPF_ALU | BPF_RSH | BPF_K, 0, 0, 16},
      {BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0},
      {BPF_ALU | BPF_MUL | BPF_K, 0, 0, 0x85ebca6b},
      {BPF_MISC | BPF_TAX, 0, 0, 0},
      {BPF_ALU | BPF_RSH | BPF_K, 0, 0, 13},
      {BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0},
      {BPF_ALU | BPF_MUL | BPF_K, 0, 0, 0xc2b2ae35},
      {BPF_MISC | BPF_TAX, 0, 0, 0},
      {BPF_ALU | BPF_RSH | BPF_K, 0, 0, 16},
      {BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0},
      {BPF_ALU | BPF_MOD | BPF_K, 0, 0, (uint32_t)count},
      {BPF_RET | BPF_A, 0, 0, 0},
  };
  return attach(fd, code, sizeof code / sizeof *code);
}

void listeners_steer_not(int fd) {
  const int none = 0;  // it has no value, but the kernel wants one
  setsockopt(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &none, sizeof none);
}
