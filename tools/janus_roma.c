// janus-roma: a stand-in for Roma's tunnel services, to try and to test the gateway
// with. Echoes, answers heartbeats, and misbehaves on command.
#include <ctype.h>
#include <getopt.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/tls.h"
#include "proto/message.pb-c.h"
#include "tools/roma/roma.h"

enum {
  WAITING_CALLS = 128,  // asked for ahead, for those that come at once
  ANSWERS_MAX = 256,    // waiting on one stream: then it is read no further
  PUSH_SEQUENCE = 100,
};

#define STREAM_OF(operation, member) \
  ((struct roma_stream *)(void *)((char *)(operation)-offsetof(struct roma_stream, member)))

static void pump(struct roma_stream *stream);

static int64_t precise_ms(void) { return clock_read_ms(CLOCK_MONOTONIC); }

static void clear_alarm(struct roma_stream *stream) {
  if (stream->alarm_ms != 0) {
    TAILQ_REMOVE(&stream->roma->alarms, stream, alarm);
    stream->alarm_ms = 0;
  }
}

// --- Life of a stream ------------------------------------------------------------------

static void start(struct roma_stream *stream, const grpc_op *ops, size_t count,
                  struct roma_operation *operation,
                  void (*on_done)(struct roma_operation *operation, bool ok)) {
  operation->on_done = on_done;
  grpc_call_error error = grpc_call_start_batch(stream->call, ops, count, operation, NULL);
  if (error != GRPC_CALL_OK) {
    fprintf(stderr, "janus-roma: batch refused: %s\n", grpc_call_error_to_string(error));
    abort();
  }
  stream->under_way++;
}

static void release(struct roma_stream *stream) {
  if (--stream->under_way > 0) {
    return;
  }
  struct roma *roma = stream->roma;
  if (roma->options.log) {
    printf("ended oid=%s status=%d cancelled=%d\n", stream->oid, stream->end_status,
           stream->cancelled);
    fflush(stdout);
  }
  struct roma_answer *answer;
  while ((answer = STAILQ_FIRST(&stream->answers))) {
    STAILQ_REMOVE_HEAD(&stream->answers, link);
    grpc_byte_buffer_destroy(answer->buffer);
    free(answer);
  }
  clear_alarm(stream);
  grpc_metadata_array_destroy(&stream->metadata);
  grpc_call_details_destroy(&stream->details);
  grpc_call_unref(stream->call);
  roma->streams--;
  free(stream);
}

// --- Sending ----------------------------------------------------------------------------

static void on_finished(struct roma_operation *operation, bool ok) {
  (void)ok;
  release(STREAM_OF(operation, finish));
}

static void finish(struct roma_stream *stream) {
  grpc_slice text = grpc_slice_from_copied_string(stream->end_text ? stream->end_text : "");
  const grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
                      .data.send_status_from_server = {
                          .status = (grpc_status_code)stream->end_status, .status_details = &text}};
  stream->finished = true;
  start(stream, &op, 1, &stream->finish, on_finished);
  grpc_slice_unref(text);
}

static void on_sent(struct roma_operation *operation, bool ok) {
  struct roma_stream *stream = STREAM_OF(operation, sent);
  stream->sending = false;
  if (ok) {
    pump(stream);
  }
  release(stream);
}

static void set_alarm(struct roma_stream *stream, int64_t wait_ms) {
  struct roma_alarms *alarms = &stream->roma->alarms;
  int64_t alarm_ms = precise_ms() + wait_ms;
  if (stream->alarm_ms != 0 && stream->alarm_ms <= alarm_ms) {
    return;  // an early one only looks again
  }
  clear_alarm(stream);
  stream->alarm_ms = alarm_ms;
  struct roma_stream *before = TAILQ_LAST(alarms, roma_alarms);
  while (before && before->alarm_ms > stream->alarm_ms) {
    before = TAILQ_PREV(before, roma_alarms, alarm);
  }
  if (before) {
    TAILQ_INSERT_AFTER(alarms, before, stream, alarm);
  } else {
    TAILQ_INSERT_HEAD(alarms, stream, alarm);
  }
}

static void queue_answer(struct roma_stream *stream, grpc_slice slice) {
  struct roma_answer *answer = malloc(sizeof *answer);
  if (!answer) {
    abort();
  }
  answer->buffer = grpc_raw_byte_buffer_create(&slice, 1);
  answer->due_ms = stream->delay_ms > 0 ? precise_ms() + stream->delay_ms : 0;
  grpc_slice_unref(slice);
  STAILQ_INSERT_TAIL(&stream->answers, answer, link);
  stream->answer_count++;
}

void roma_stream_answer_raw(struct roma_stream *stream, const uint8_t *bytes, size_t len) {
  queue_answer(stream, grpc_slice_from_copied_buffer((const char *)bytes, len));
}

void roma_stream_answer(struct roma_stream *stream, const struct packet *packet) {
  grpc_slice slice = grpc_slice_malloc(tunnel_message_size(packet, stream->fragments));
  tunnel_message_encode(packet, stream->fragments, GRPC_SLICE_START_PTR(slice));
  queue_answer(stream, slice);
}

void roma_stream_end(struct roma_stream *stream, int status, const char *text) {
  stream->ending = true;
  stream->end_status = status;
  snprintf(stream->end_text_buffer, sizeof stream->end_text_buffer, "%s", text);
  stream->end_text = stream->end_text_buffer;
}

// The next message of a flood, or of pushes that are due.
static void produce(struct roma_stream *stream) {
  static uint8_t filler[ROMA_FILLER_MAX_BYTES];
  size_t size = 0;
  if (stream->flood_left > 0) {
    stream->flood_left--;
    size = stream->flood_bytes;
  } else if (stream->push_left > 0) {
    int64_t wait_ms = stream->push_next_ms - precise_ms();
    if (wait_ms > 0) {
      set_alarm(stream, wait_ms);
      return;
    }
    stream->push_left--;
    stream->push_next_ms = precise_ms() + stream->push_every_ms;
    size = stream->push_bytes;
  } else {
    return;
  }
  struct packet packet = {
      .data = filler, .data_len = size, .mod = MODULE_USER, .seq = PUSH_SEQUENCE};
  roma_stream_answer(stream, &packet);
}

static void read_on(struct roma_stream *stream);

// Sends what is due, one at a time, and ends the stream after it if it is to.
static void pump(struct roma_stream *stream) {
  if (stream->sending || stream->finished || stream->cancelled) {
    return;
  }
  if (!STAILQ_FIRST(&stream->answers)) {
    produce(stream);
  }
  struct roma_answer *answer = STAILQ_FIRST(&stream->answers);
  if (!answer) {
    if (stream->ending) {
      finish(stream);
    }
    return;
  }
  int64_t wait_ms = answer->due_ms > 0 ? answer->due_ms - precise_ms() : 0;
  if (wait_ms > 0) {
    set_alarm(stream, wait_ms);
    return;
  }
  const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = answer->buffer};
  stream->sending = true;
  start(stream, &op, 1, &stream->sent, on_sent);
  STAILQ_REMOVE_HEAD(&stream->answers, link);
  stream->answer_count--;
  grpc_byte_buffer_destroy(answer->buffer);
  free(answer);
  read_on(stream);
}

// --- Receiving ----------------------------------------------------------------------------

static void record(struct roma_stream *stream, const struct packet *packet) {
  FILE *file = stream->roma->options.record;
  fprintf(file, "%s\t%d\t%d\t%d\t", stream->oid, packet->mod, packet->seq, packet->index);
  for (size_t i = 0; i < packet->data_len; i++) {
    uint8_t byte = packet->data[i];
    fprintf(file, isprint(byte) && byte != '\\' ? "%c" : "\\x%02x", byte);
  }
  fputc('\n', file);
  fflush(file);
}

static void count_message(struct roma_stream *stream) {
  struct roma *roma = stream->roma;
  struct roma_object *object = NULL;
  HASH_FIND_STR(roma->objects, stream->oid, object);
  if (!object && (object = calloc(1, sizeof *object))) {
    snprintf(object->key, sizeof object->key, "%s", stream->oid);
    HASH_ADD_STR(roma->objects, key, object);
  }
  if (object) {
    object->messages++;
  }
}

static void answer_heartbeat(struct roma_stream *stream, const struct packet *packet) {
  uint8_t data[32];
  Message__SCHeartbeat heartbeat = MESSAGE__SCHEARTBEAT__INIT;
  heartbeat.server_time = clock_wall_ms() / 1000;
  heartbeat.code = 1;
  struct packet answer = *packet;
  answer.data = data;
  answer.data_len = message__scheartbeat__pack(&heartbeat, data);
  roma_stream_answer(stream, &answer);
}

static void on_message(struct roma_stream *stream, const uint8_t *bytes, size_t len) {
  struct packet packet;
  if (tunnel_message_decode(&packet, bytes, len) != 0) {
    roma_stream_end(stream, GRPC_STATUS_INVALID_ARGUMENT, "this is no tunnel message");
    return;
  }
  count_message(stream);
  if (stream->roma->options.record) {
    record(stream, &packet);
  }
  if (packet.mod == MODULE_SYSTEM && packet.seq == SYSTEM_HEARTBEAT) {
    answer_heartbeat(stream, &packet);
  } else if (packet.mod == MODULE_DEV) {
    roma_command(stream, &packet);
  } else {
    roma_stream_answer(stream, &packet);
  }
}

static void on_read(struct roma_operation *operation, bool ok) {
  struct roma_stream *stream = STREAM_OF(operation, read);
  grpc_byte_buffer *buffer = stream->received;
  stream->reading = false;
  if (ok && buffer) {
    grpc_byte_buffer_reader reader;
    if (grpc_byte_buffer_reader_init(&reader, buffer)) {
      grpc_slice whole = grpc_byte_buffer_reader_readall(&reader);
      on_message(stream, GRPC_SLICE_START_PTR(whole), GRPC_SLICE_LENGTH(whole));
      grpc_slice_unref(whole);
      grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(buffer);
    pump(stream);
    read_on(stream);
  } else if (ok && !stream->finished) {
    // The gateway has no more to say: the object leaves.
    if (!stream->ending) {
      roma_stream_end(stream, 0, "");
    }
    stream->flood_left = 0;
    stream->push_left = 0;
    pump(stream);
  }
  release(stream);
}

static void read_on(struct roma_stream *stream) {
  if (stream->reading || stream->stalled || stream->ending || stream->finished ||
      stream->cancelled || stream->answer_count >= ANSWERS_MAX) {
    return;
  }
  const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
                      .data.recv_message.recv_message = &stream->received};
  stream->received = NULL;
  stream->reading = true;
  start(stream, &op, 1, &stream->read, on_read);
}

// --- Accepting ------------------------------------------------------------------------------

static bool metadata_value(const struct roma_stream *stream, const char *key, char *out,
                           size_t size) {
  for (size_t i = 0; i < stream->metadata.count; i++) {
    const grpc_metadata *one = &stream->metadata.metadata[i];
    if (grpc_slice_str_cmp(one->key, key) == 0) {
      size_t len = GRPC_SLICE_LENGTH(one->value);
      snprintf(out, size, "%.*s", (int)len, (const char *)GRPC_SLICE_START_PTR(one->value));
      return true;
    }
  }
  return false;
}

static bool serves(const struct roma *roma, grpc_slice method) {
  for (size_t i = 0; i < roma->options.method_count; i++) {
    if (grpc_slice_str_cmp(method, roma->options.methods[i]) == 0) {
      return true;
    }
  }
  return false;
}

// What Roma asks of a gateway before it takes a stream.
static void check_stream(struct roma_stream *stream) {
  static const char *const required[] = {"x-md-global-oid",         "x-md-global-uid",
                                         "x-md-global-sid",         "x-md-global-color",
                                         "x-md-global-client-ip",   "x-md-global-referer",
                                         "x-md-global-gate-referer"};
  struct roma *roma = stream->roma;
  char value[256];
  if (roma->options.fail_status != 0) {
    roma_stream_end(stream, roma->options.fail_status, "told to fail");
    return;
  }
  if (!serves(roma, stream->details.method)) {
    roma_stream_end(stream, GRPC_STATUS_UNIMPLEMENTED, "this method is not served");
    return;
  }
  for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
    if (!metadata_value(stream, required[i], value, sizeof value)) {
      char text[128];
      snprintf(text, sizeof text, "metadata %s is missing", required[i]);
      roma_stream_end(stream, GRPC_STATUS_INVALID_ARGUMENT, text);
      return;
    }
  }
  if (!metadata_value(stream, "x-md-global-status", value, sizeof value) ||
      strcmp(value, "1") != 0) {
    roma_stream_end(stream, GRPC_STATUS_PERMISSION_DENIED, "the player's status is not 1");
  }
}

static void on_begun(struct roma_operation *operation, bool ok) {
  (void)ok;
  release(STREAM_OF(operation, begin));
}

static void on_closed(struct roma_operation *operation, bool ok) {
  struct roma_stream *stream = STREAM_OF(operation, closed);
  (void)ok;
  release(stream);
}

static void await_call(struct roma *roma);

static void on_accepted(struct roma_operation *operation, bool ok) {
  struct roma_stream *stream = STREAM_OF(operation, accepted);
  struct roma *roma = stream->roma;
  if (!ok) {  // the server shuts down
    grpc_metadata_array_destroy(&stream->metadata);
    grpc_call_details_destroy(&stream->details);
    free(stream);
    return;
  }
  await_call(roma);
  roma->streams++;
  const grpc_op begin = {.op = GRPC_OP_SEND_INITIAL_METADATA};
  const grpc_op closed = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                          .data.recv_close_on_server.cancelled = &stream->cancelled};
  start(stream, &begin, 1, &stream->begin, on_begun);
  start(stream, &closed, 1, &stream->closed, on_closed);
  snprintf(stream->oid, sizeof stream->oid, "?");
  metadata_value(stream, "x-md-global-oid", stream->oid, sizeof stream->oid);
  stream->fragments = grpc_slice_str_cmp(stream->details.method, roma->options.methods[0]) != 0;
  stream->delay_ms = roma->options.delay_ms;
  if (roma->options.log) {
    char *method = grpc_slice_to_c_string(stream->details.method);
    printf("opened oid=%s method=%s\n", stream->oid, method);
    fflush(stdout);
    gpr_free(method);
  }
  check_stream(stream);
  pump(stream);
  read_on(stream);
}

static void await_call(struct roma *roma) {
  struct roma_stream *stream = calloc(1, sizeof *stream);
  if (!stream) {
    abort();
  }
  stream->roma = roma;
  STAILQ_INIT(&stream->answers);
  grpc_metadata_array_init(&stream->metadata);
  grpc_call_details_init(&stream->details);
  stream->accepted.on_done = on_accepted;
  if (grpc_server_request_call(roma->server, &stream->call, &stream->details, &stream->metadata,
                               roma->queue, roma->queue, &stream->accepted) != GRPC_CALL_OK) {
    free(stream);
  }
}

// --- The program ---------------------------------------------------------------------------

static void on_shut_down(struct roma_operation *operation, bool ok) {
  (void)operation;
  (void)ok;
}

// Waits for the signal that ends the program; its own thread.
static void *await_signal(void *context) {
  static struct roma_operation shut_down = {on_shut_down};
  struct roma *roma = context;
  sigset_t signals;
  int number;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigwait(&signals, &number);
  grpc_server_shutdown_and_notify(roma->server, roma->queue, &shut_down);
  grpc_server_cancel_all_calls(roma->server);
  grpc_completion_queue_shutdown(roma->queue);
  return NULL;
}

// One turn: an event, or the alarms that are due. False at the end.
static bool work(struct roma *roma) {
  struct roma_stream *stream = TAILQ_FIRST(&roma->alarms);
  gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
  if (stream) {
    deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                            gpr_time_from_millis(stream->alarm_ms - precise_ms(), GPR_TIMESPAN));
  }
  grpc_event event = grpc_completion_queue_next(roma->queue, deadline, NULL);
  if (event.type == GRPC_OP_COMPLETE) {
    struct roma_operation *operation = event.tag;
    operation->on_done(operation, event.success != 0);
  }
  while ((stream = TAILQ_FIRST(&roma->alarms)) && stream->alarm_ms <= precise_ms()) {
    clear_alarm(stream);
    pump(stream);
  }
  return event.type != GRPC_QUEUE_SHUTDOWN;
}

// NULL with the reason in why.
static grpc_server_credentials *credentials_new(const struct roma_options *options, char *why,
                                                size_t why_size) {
  grpc_server_credentials *credentials = NULL;
  char *cert = NULL;
  char *key = NULL;
  char *ca = NULL;
  if (!options->tls_cert) {
    return grpc_insecure_server_credentials_create();
  }
  if ((cert = tls_read_pem(options->tls_cert, why, why_size)) &&
      (key = tls_read_pem(options->tls_key, why, why_size)) &&
      (!options->tls_client_ca || (ca = tls_read_pem(options->tls_client_ca, why, why_size)))) {
    grpc_ssl_pem_key_cert_pair own = {key, cert};
    credentials = grpc_ssl_server_credentials_create_ex(
        ca, &own, 1,
        ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
           : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
        NULL);
  }
  free(cert);
  free(key);
  free(ca);
  return credentials;
}

static int run(struct roma *roma) {
  const struct roma_options *options = &roma->options;
  grpc_arg args[2] = {
      {.type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_ALLOW_REUSEPORT, .value.integer = 0},
      {.type = GRPC_ARG_INTEGER,
       .key = (char *)GRPC_ARG_MAX_CONCURRENT_STREAMS,
       .value.integer = options->max_streams}};
  const grpc_channel_args all = {.num_args = options->max_streams > 0 ? 2 : 1, .args = args};
  sigset_t signals;
  pthread_t signal_thread;
  char why[512] = "";

  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  TAILQ_INIT(&roma->alarms);
  grpc_init();
  roma->queue = grpc_completion_queue_create_for_next(NULL);
  roma->server = grpc_server_create(&all, NULL);
  grpc_server_register_completion_queue(roma->server, roma->queue, NULL);
  grpc_server_credentials *credentials = credentials_new(options, why, sizeof why);
  if (!credentials) {
    fprintf(stderr, "janus-roma: %s\n", why);
    return 1;
  }
  int port = grpc_server_add_http2_port(roma->server, options->listen, credentials);
  grpc_server_credentials_release(credentials);
  if (port == 0) {
    fprintf(stderr, "janus-roma: can't listen on %s%s\n", options->listen,
            options->tls_cert ? ", or the certificate and its key are not good" : "");
    return 1;
  }
  grpc_server_start(roma->server);
  const char *colon = strrchr(options->listen, ':');
  snprintf(roma->address, sizeof roma->address, "%.*s:%d",
           colon ? (int)(colon - options->listen) : 0, options->listen, port);
  printf("janus-roma: listening on %s\n", roma->address);
  fflush(stdout);
  if (pthread_create(&signal_thread, NULL, await_signal, roma) != 0) {
    return 1;
  }
  for (int i = 0; i < WAITING_CALLS; i++) {
    await_call(roma);
  }
  while (work(roma)) {
  }
  pthread_join(signal_thread, NULL);
  grpc_server_destroy(roma->server);
  grpc_completion_queue_destroy(roma->queue);
  grpc_shutdown();
  struct roma_object *object;
  struct roma_object *next;
  HASH_ITER(hh, roma->objects, object, next) {
    HASH_DELETE(hh, roma->objects, object);
    free(object);
  }
  return 0;
}

static void print_help(void) {
  printf(
      "janus-roma: a stand-in for Roma's tunnel services, to try and test the gateway with.\n"
      "\n"
      "Usage: janus-roma [--listen HOST:PORT] [options]\n"
      "\n"
      "  --listen HOST:PORT   where to serve (default 127.0.0.1:19200; port 0: any free one)\n"
      "  --tls-cert FILE      speak TLS with this certificate, PEM\n"
      "  --tls-key FILE       and its key\n"
      "  --tls-client-ca FILE  take only gateways with a certificate from this authority\n"
      "  --method PATH        a further gRPC method to serve, as "
      "/team.intra.v1.TunnelService/Tunnel\n"
      "  --delay MS           answer everything this much later\n"
      "  --fail STATUS        refuse each stream with this gRPC status\n"
      "  --max-streams N      allow so many streams on a connection\n"
      "  --record FILE        append each message: object, module, sequence, index, data\n"
      "  --log                say when a stream opens and ends\n"
      "  --help, --version\n"
      "\n"
      "Heartbeats are answered, every other message is echoed.\n"
      "%s"
      "\n"
      "Example: janus-roma --listen 127.0.0.1:19200 --log\n"
      "         janus-roma --tls-cert roma.crt --tls-key roma.key --tls-client-ca ca.crt\n"
      "Exit status: 0 after SIGTERM or SIGINT, 1 when it can't serve, 2 for a wrong command "
      "line.\n",
      roma_command_help);
}

static bool read_number(const char *text, int64_t max, int64_t *value) {
  char *end;
  long long number = strtoll(text, &end, 10);
  *value = number;
  return *text != '\0' && *end == '\0' && number >= 0 && number <= max;
}

int main(int argc, char **argv) {
  enum {
    LISTEN = 1000,
    TLS_CERT,
    TLS_KEY,
    TLS_CLIENT_CA,
    METHOD,
    DELAY,
    FAIL,
    MAX_STREAMS,
    RECORD,
    LOG
  };
  static const struct option options[] = {{"listen", required_argument, NULL, LISTEN},
                                          {"tls-cert", required_argument, NULL, TLS_CERT},
                                          {"tls-key", required_argument, NULL, TLS_KEY},
                                          {"tls-client-ca", required_argument, NULL, TLS_CLIENT_CA},
                                          {"method", required_argument, NULL, METHOD},
                                          {"delay", required_argument, NULL, DELAY},
                                          {"fail", required_argument, NULL, FAIL},
                                          {"max-streams", required_argument, NULL, MAX_STREAMS},
                                          {"record", required_argument, NULL, RECORD},
                                          {"log", no_argument, NULL, LOG},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {NULL, 0, NULL, 0}};
  static struct roma roma = {.options = {.listen = "127.0.0.1:19200",
                                         .methods = {"/player.intra.v1.TunnelService/Tunnel",
                                                     "/room.intra.v1.TunnelService/Tunnel"},
                                         .method_count = 2}};
  struct roma_options *chosen = &roma.options;
  int option;
  while ((option = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
    int64_t number = 0;
    bool good = true;
    switch (option) {
      case LISTEN: chosen->listen = optarg; break;
      case TLS_CERT: chosen->tls_cert = optarg; break;
      case TLS_KEY: chosen->tls_key = optarg; break;
      case TLS_CLIENT_CA: chosen->tls_client_ca = optarg; break;
      case METHOD:
        good = chosen->method_count < ROMA_METHODS_MAX && optarg[0] == '/';
        if (good) {
          chosen->methods[chosen->method_count++] = optarg;
        }
        break;
      case DELAY: good = read_number(optarg, 3600000, &chosen->delay_ms); break;
      case FAIL:
        good = read_number(optarg, 16, &number);
        chosen->fail_status = (int)number;
        break;
      case MAX_STREAMS:
        good = read_number(optarg, 1000000, &number);
        chosen->max_streams = (int)number;
        break;
      case RECORD:
        chosen->record = fopen(optarg, "a");
        if (!chosen->record) {
          perror(optarg);
          return 1;
        }
        break;
      case LOG: chosen->log = true; break;
      case 'h': print_help(); return 0;
      case 'V': printf("janus-roma %s\n", JANUS_VERSION); return 0;
      default: good = false; break;
    }
    if (!good) {
      fprintf(stderr, "janus-roma: try `janus-roma --help`\n");
      return 2;
    }
  }
  if (!chosen->tls_cert != !chosen->tls_key || (chosen->tls_client_ca && !chosen->tls_cert)) {
    fprintf(stderr,
            "janus-roma: --tls-cert and --tls-key go together, --tls-client-ca with them\n");
    return 2;
  }
  int status = run(&roma);
  if (chosen->record) {
    fclose(chosen->record);
  }
  return status;
}
