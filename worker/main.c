// janus-worker: started by janusd, which hands it everything it needs by
// descriptor (common/handover.h). Not meant to be run by hand.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "common/layout.h"
#include "common/log.h"
#include "common/tls.h"
#include "worker/worker.h"

int main(int argc, char **argv) {
  char *end = NULL;
  tls_outlive_main();
  if (argc == 2 && strcmp(argv[1], "--layout") == 0) {
    printf("%016" PRIx64 "\n", layout_id());
    return 0;
  }
  long index = argc == 2 ? strtol(argv[1], &end, 10) : -1;
  if (argc != 2 || *end != '\0' || index < 0 || index >= CONFIG_WORKER_NUMBERS) {
    fprintf(stderr,
            "janus-worker: this program is started by janusd, with the number of the worker.\n");
    return 2;
  }
  prctl(PR_SET_NAME, "janus-worker");  // exec by a descriptor has named it by its number
  log_setup(LOG_TYPE_TEXT, LOG_LEVEL_INFO, "worker");
  return worker_run((int)index);
}
