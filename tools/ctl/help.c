#include "tools/ctl/help.h"

#include <stdio.h>
#include <string.h>

#include "common/config.h"

enum { WIDTH = 90, OPTION_COLUMN = 24, COMMAND_COLUMN = 23 };

static const char *const overview_examples[] = {
    "janusctl status",
    "janusctl sessions --sort traffic --limit 10",
    "janusctl kick 10001 --reason 'asked by support'",
    "janusctl drain --timeout 10m --spread 2m",
    "janusctl stats --json | jq .total.counters.logins",
};

// Options that every command has.
static const struct {
  const char *names;
  const char *help;
} common_options[] = {
    {"-s, --socket PATH",
     "the gateway's control.socket (default: $JANUS_CONTROL_SOCKET, "
     "else " CONFIG_CONTROL_SOCKET ")"},
    {"-j, --json", "the answer as JSON, for programs; what is wrong too"},
    {"-h, --help", "this text; behind a command, of that command"},
    {"-V, --version", "the version"},
};

// Prints words up to the width, with further lines indented like the first one.
static void print_wrapped(const char *text, int indent) {
  int column = indent;
  while (*text != '\0') {
    int len = (int)strcspn(text, " ");
    if (column > indent && column + 1 + len > WIDTH) {
      printf("\n%*s", indent, "");
      column = indent;
    } else if (column > indent) {
      printf(" ");
      column++;
    }
    printf("%.*s", len, text);
    column += len;
    text += len + (text[len] == ' ');
  }
  printf("\n");
}

static void print_entry(const char *name, const char *text, int column) {
  int len = printf("  %s", name);
  if (len + 1 >= column) {
    printf("\n");
    len = 0;
  }
  printf("%*s", column - len, "");
  print_wrapped(text, column);
}

static void print_common_options(void) {
  for (size_t i = 0; i < sizeof common_options / sizeof *common_options; i++) {
    print_entry(common_options[i].names, common_options[i].help, OPTION_COLUMN);
  }
}

static void words_format(const struct ctl_command *command, char *text, size_t size) {
  int len = snprintf(text, size, "%s", command->name);
  for (const struct ctl_word *word = command->words; word->name; word++) {
    len += snprintf(text + len, size - (size_t)len, word->optional ? " [%s]" : " %s", word->name);
  }
}

static void option_format(const struct ctl_option *option, char *text, size_t size) {
  char letter[8] = "    ";
  if (option->letter != '\0') {
    snprintf(letter, sizeof letter, "-%c, ", option->letter);
  }
  snprintf(text, size, "%s--%s%s%s", letter, option->name, option->value ? " " : "",
           option->value ? option->value : "");
}

void ctl_help_overview(void) {
  char words[64];
  printf(
      "janusctl: asks a running gateway how it is, and acts on it\n\n"
      "Usage: janusctl [--socket PATH] [--json] COMMAND [OPTION]...\n"
      "       janusctl help COMMAND      its options, with examples\n");
  for (int group = 0; group < CTL_GROUP_COUNT; group++) {
    printf("\n%s:\n", ctl_group_title((enum ctl_group)group));
    for (size_t i = 0; i < ctl_command_count; i++) {
      if ((int)ctl_commands[i].group == group) {
        words_format(&ctl_commands[i], words, sizeof words);
        print_entry(words, ctl_commands[i].summary, COMMAND_COLUMN);
      }
    }
  }
  printf("\nOptions:\n");
  print_common_options();
  printf("\nExamples:\n");
  for (size_t i = 0; i < sizeof overview_examples / sizeof *overview_examples; i++) {
    printf("  %s\n", overview_examples[i]);
  }
  printf(
      "\nExit status: 0 all is well, 1 the gateway answered with an error, 2 wrong usage,\n"
      "3 the gateway can't be reached.\n");
}

void ctl_help_command(const struct ctl_command *command) {
  char text[64];
  words_format(command, text, sizeof text);
  printf("janusctl %s: %s\n\nUsage: janusctl %s%s\n", command->name, command->summary, text,
         command->options != 0 ? " [OPTION]..." : "");
  if (command->details) {
    printf("\n");
    print_wrapped(command->details, 0);
  }
  printf("\nOptions:\n");
  for (int id = 0; id < CTL_OPTION_COUNT; id++) {
    if (command->options & CTL_BIT(id)) {
      option_format(&ctl_options[id], text, sizeof text);
      print_entry(text, ctl_options[id].help, OPTION_COLUMN);
    }
  }
  print_common_options();
  printf("\nExamples:\n");
  for (const char *const *example = command->examples; *example; example++) {
    printf("  %s\n", *example);
  }
  printf("\n");
  print_wrapped(command->read_only
                    ? "It only looks: the group control.read_group may do it too."
                    : "It changes the gateway, or shows what players do: only root and the group "
                      "control.group may do it.",
                0);
}

// --- For programs -----------------------------------------------------------------------

static json_t *options_to_json(const struct ctl_command *command) {
  json_t *options = json_array();
  for (int id = 0; id < CTL_OPTION_COUNT; id++) {
    const struct ctl_option *option = &ctl_options[id];
    if (command->options & CTL_BIT(id)) {
      char letter[2] = {option->letter, '\0'};
      json_array_append_new(
          options, json_pack("{s:s, s:s, s:s?, s:s}", "name", option->name, "letter", letter,
                             "value", option->value, "help", option->help));
    }
  }
  return options;
}

static json_t *command_to_json(const struct ctl_command *command) {
  json_t *words = json_array(), *examples = json_array();
  for (const struct ctl_word *word = command->words; word->name; word++) {
    json_array_append_new(words,
                          json_pack("{s:s, s:b}", "name", word->name, "optional", word->optional));
  }
  for (const char *const *example = command->examples; *example; example++) {
    json_array_append_new(examples, json_string(*example));
  }
  return json_pack("{s:s, s:s, s:s, s:s?, s:b, s:o, s:o, s:o}", "name", command->name, "group",
                   ctl_group_title(command->group), "summary", command->summary, "details",
                   command->details, "read_only", command->read_only, "words", words, "options",
                   options_to_json(command), "examples", examples);
}

void ctl_help_json(void) {
  json_t *commands = json_array(), *options = json_array();
  for (size_t i = 0; i < ctl_command_count; i++) {
    json_array_append_new(commands, command_to_json(&ctl_commands[i]));
  }
  for (size_t i = 0; i < sizeof common_options / sizeof *common_options; i++) {
    json_array_append_new(options, json_pack("{s:s, s:s}", "names", common_options[i].names, "help",
                                             common_options[i].help));
  }
  json_t *help = json_pack("{s:o, s:o}", "commands", commands, "options", options);
  json_dumpf(help, stdout, JSON_INDENT(2));
  printf("\n");
  json_decref(help);
}
