#define _POSIX_C_SOURCE 200809L /* sysconf */
/* memory BUNDLE WARM_UP CALLS: resident memory after so many calls for features, and after so many more; then ten times
   open, features, close. */
#include <mova.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SIDE 48

static unsigned char pixels[SIDE * SIDE * 3];

static mova_status features(mova_runtime *runtime, unsigned frame) {
  mova_image image = {pixels, SIDE, SIDE, 0, MOVA_RGB8, 0};
  mova_result *result;
  mova_tensor tensor;
  for (int byte = 0; byte < 4; byte++) pixels[byte] = (unsigned char)(frame >> 8 * byte); /* none is in the cache */
  mova_status status = mova_features(runtime, &image, "pix2struct", &result);
  if (status) return status;
  status = mova_result_tensor(result, "features", &tensor);
  mova_status released = mova_release(result);
  return status ? status : released;
}

static long resident(void) {
  long pages = 0, size;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%ld %ld", &size, &pages) != 2) exit(3);
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  mova_runtime *runtime;
  mova_options options = {0};
  options.struct_size = sizeof options;
  options.feature_cache = "1MiB"; /* full after some twenty calls */
  mova_status status = mova_open(arguments[1], &options, &runtime);
  unsigned warm_up = (unsigned)atoi(arguments[2]), calls = (unsigned)atoi(arguments[3]), frame = 0;
  for (; frame < warm_up && !status; frame++) status = features(runtime, frame);
  printf("warm: %ld\n", resident());
  for (; frame < warm_up + calls && !status; frame++) status = features(runtime, frame);
  printf("after: %ld\n", resident());
  if (!status) status = mova_close(runtime);
  for (int cycle = 0; cycle < 10 && !status; cycle++) {
    status = mova_open(arguments[1], NULL, &runtime);
    if (!status) status = features(runtime, frame);
    if (!status) status = mova_close(runtime);
    printf("cycle %d: %s\n", cycle, mova_status_name(status));
  }
  if (status) fprintf(stderr, "%s\n", mova_last_error());
  return status != MOVA_OK;
}
