#include "tools/ctl/command_line.h"

#include <ctype.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/config_value.h"
#include "tools/ctl/help.h"

enum { OPTION_BASE = 256, COMMON_OPTIONS = 4 };  // those without a letter have a number from there

static const char short_common[] = ":s:jhV";

struct line {
  struct ctl_call *call;
  uint64_t given;  // options
  bool help;
};

#define USAGE(line, ...) \
  (ctl_complain(&(line)->call->gateway, __VA_ARGS__), usage_hint(line), CTL_USAGE)

static void usage_hint(const struct line *line) {
  const struct ctl_command *command = line->call->command;
  fprintf(stderr, "Try janusctl %s%s.\n", command ? "help " : "--help",
          command ? command->name : "");
}

// --- Options --------------------------------------------------------------------------------

// Before all else, so that what is wrong in front of it is told to programs too.
static bool asks_for_json(int argc, char **argv) {
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
    if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "-j") == 0) {
      return true;
    }
  }
  return false;
}

static int option_value(int id) {
  return ctl_options[id].letter != '\0' ? ctl_options[id].letter : OPTION_BASE + id;
}

static enum ctl_option_id option_of(int value) {
  int id = 0;
  while (id < CTL_OPTION_COUNT && (!ctl_options[id].name || option_value(id) != value)) {
    id++;
  }
  return (enum ctl_option_id)id;
}

// What getopt has stumbled over.
static int complain_of_option(const struct line *line, char **argv, bool lacks_value) {
  char letter[3] = {'-', isprint(optopt) ? (char)optopt : '?', '\0'};
  const char *text = optopt > 0 && optopt < OPTION_BASE ? letter : argv[optind - 1];
  if (lacks_value) {
    return USAGE(line, "the option %s needs a value", text);
  }
  return USAGE(line, "the option %s is not understood (before a negative number goes --)", text);
}

static int take_option(struct line *line, int value) {
  enum ctl_option_id id = option_of(value);
  const char *wanted = ctl_option_take(line->call->request, id, optarg ? optarg : "");
  if (wanted) {
    return USAGE(line, "--%s takes %s, not %s", ctl_options[id].name, wanted, optarg);
  }
  line->given |= CTL_BIT(id);
  return CTL_CALLS;
}

// Returns CTL_CALLS, or the exit status.
static int read_options(int argc, char **argv, struct line *line) {
  struct option options[CTL_OPTION_COUNT + COMMON_OPTIONS + 1] = {
      {"socket", required_argument, NULL, 's'},
      {"json", no_argument, NULL, 'j'},
      {"help", no_argument, NULL, 'h'},
      {"version", no_argument, NULL, 'V'},
  };
  char letters[sizeof short_common + (size_t)2 * CTL_OPTION_COUNT];
  size_t count = COMMON_OPTIONS, len = strlen(short_common);
  memcpy(letters, short_common, sizeof short_common);
  for (int id = 0; id < CTL_OPTION_COUNT; id++) {
    const struct ctl_option *option = &ctl_options[id];
    if (option->name) {
      options[count++] = (struct option){
          option->name, option->value ? required_argument : no_argument, NULL, option_value(id)};
    }
    if (option->letter != '\0') {
      letters[len++] = option->letter;
      letters[len++] = ':';
    }
  }
  letters[len] = '\0';
  for (int value; (value = getopt_long(argc, argv, letters, options, NULL)) != -1;) {
    int status = CTL_CALLS;
    switch (value) {
      case 's': line->call->gateway.path = optarg; break;
      case 'j': line->call->gateway.as_json = true; break;
      case 'h': line->help = true; break;
      case 'V': puts("janusctl " JANUS_VERSION); return EXIT_SUCCESS;
      case ':': status = complain_of_option(line, argv, true); break;
      case '?': status = complain_of_option(line, argv, false); break;
      default: status = take_option(line, value); break;
    }
    if (status != CTL_CALLS) {
      return status;
    }
  }
  return CTL_CALLS;
}

// Of those given, for this command. Returns CTL_CALLS, or the exit status.
static int check_options(const struct line *line) {
  const struct ctl_command *command = line->call->command;
  uint64_t missing = command->needed & ~line->given;
  for (int id = 0; id < CTL_OPTION_COUNT; id++) {
    if (line->given & ~command->options & CTL_BIT(id)) {
      return USAGE(line, "%s does not take --%s", command->name, ctl_options[id].name);
    }
    if (missing & CTL_BIT(id)) {
      return USAGE(line, "%s needs --%s", command->name, ctl_options[id].name);
    }
  }
  if ((line->given & CTL_BIT(CTL_DATA)) && (line->given & CTL_BIT(CTL_HEX))) {
    return USAGE(line, "%s takes --data or --hex, not both", command->name);
  }
  if ((line->given & CTL_BIT(CTL_WAIT)) && (line->given & CTL_BIT(CTL_NO_WAIT))) {
    return USAGE(line, "%s takes --wait or --no-wait, not both", command->name);
  }
  return CTL_CALLS;
}

// --- The command and its words -----------------------------------------------------------------

// The command of the first words, and of how many of them.
static const struct ctl_command *find_command(int argc, char **argv, int *words) {
  char name[64];
  const struct ctl_command *command = NULL;
  *words = 2;
  if (argc > 1 && strcmp(argv[0], "routes") == 0 && strcmp(argv[1], "list") == 0) {
    return ctl_command_named("routes");
  }
  if (argc > 1) {
    snprintf(name, sizeof name, "%.24s %.24s", argv[0], argv[1]);
    command = ctl_command_named(name);
  }
  if (!command) {
    *words = 1;
    command = ctl_command_named(argv[0]);
  }
  return command;
}

// The one that differs least from the first word or two. NULL: all are other words.
static const struct ctl_command *nearest_command(int argc, char **argv) {
  const struct ctl_command *nearest = NULL;
  char two[64];
  size_t best = 3;  // changes: from here on it is another word
  snprintf(two, sizeof two, "%.24s %.24s", argv[0], argc > 1 ? argv[1] : "");
  for (size_t i = 0; i < ctl_command_count; i++) {
    const char *name = ctl_commands[i].name;
    bool is_two = strchr(name, ' ') != NULL;
    size_t distance = config_value_distance(is_two ? two : argv[0], name);
    if (distance < best || (is_two && nearest && distance == best)) {  // two words tell more
      best = distance;
      nearest = &ctl_commands[i];
    }
  }
  return nearest;
}

static int complain_of_command(const struct line *line, int argc, char **argv) {
  const struct ctl_command *nearest = nearest_command(argc, argv);
  return nearest ? USAGE(line, "there is no command %s; did you mean %s?", argv[0], nearest->name)
                 : USAGE(line, "there is no command %s", argv[0]);
}

// Those behind its name; one whose option is given is left out. Returns CTL_CALLS, or the exit
// status.
static int take_words(const struct line *line, int argc, char **argv) {
  const struct ctl_command *command = line->call->command;
  int taken = 0;
  for (const struct ctl_word *word = command->words; word->name; word++) {
    if (line->given & CTL_BIT(word->id)) {
      continue;
    }
    if (taken == argc && word->optional) {
      break;
    }
    if (taken == argc) {
      return USAGE(line, "%s needs %s", command->name, word->name);
    }
    const char *wanted = ctl_option_take(line->call->request, word->id, argv[taken]);
    if (wanted) {
      return USAGE(line, "%s: %s is to be %s, not %s", command->name, word->name, wanted,
                   argv[taken]);
    }
    taken++;
  }
  if (taken < argc) {
    return USAGE(line, "one command at a time; %s is too much", argv[taken]);
  }
  return CTL_CALLS;
}

// --- Help --------------------------------------------------------------------------------------

static int show_help(const struct line *line, int argc, char **argv) {
  int words;
  const struct ctl_command *command = argc > 0 ? find_command(argc, argv, &words) : NULL;
  if (argc > 0 && !command) {
    return complain_of_command(line, argc, argv);
  }
  if (command) {
    ctl_help_command(command);
  } else if (line->call->gateway.as_json) {
    ctl_help_json();
  } else {
    ctl_help_overview();
  }
  return ctl_flush(&line->call->gateway);
}

static int read_command(int argc, char **argv, struct line *line) {
  int words;
  if (argc == 0 && !line->help) {
    return USAGE(line, "which command?");
  }
  if (argc > 0 && strcmp(argv[0], "help") == 0) {
    return show_help(line, argc - 1, argv + 1);
  }
  if (line->help) {
    return show_help(line, argc, argv);
  }
  line->call->command = find_command(argc, argv, &words);
  if (!line->call->command) {
    return complain_of_command(line, argc, argv);
  }
  int status = check_options(line);
  return status != CTL_CALLS ? status : take_words(line, argc - words, argv + words);
}

int ctl_command_line_read(int argc, char **argv, struct ctl_call *call) {
  const char *path = getenv("JANUS_CONTROL_SOCKET");
  struct line line = {.call = call};
  *call = (struct ctl_call){.request = json_object()};
  call->gateway = (struct ctl_gateway){
      .path = path && path[0] != '\0' ? path : CONFIG_CONTROL_SOCKET,
      .as_json = asks_for_json(argc, argv),
      .complaints = stderr,
  };
  opterr = 0;
  int status = read_options(argc, argv, &line);
  if (status == CTL_CALLS) {
    status = read_command(argc - optind, argv + optind, &line);
  }
  if (status == CTL_CALLS) {
    json_object_set_new(call->request, "command", json_string(call->command->name));
  }
  return status;
}
