// janusctl: asks a running gateway how it is and acts on it, through its control socket.
#include "tools/ctl/command_line.h"

int main(int argc, char **argv) {
  struct ctl_call call;
  int status = ctl_command_line_read(argc, argv, &call);
  if (status == CTL_CALLS) {
    status = ctl_command_run(&call);
  }
  json_decref(call.request);
  return status;
}
