/* calls BUNDLE ENCODER PIXELS WIDTH HEIGHT CALLS OUT: the first call's features to OUT, then the nanoseconds of each of so
   many calls more: features, the pointer to them, release. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <mova.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static mova_runtime *runtime;
static mova_image image;
static const char *encoder;

static void stop_if(mova_status status) {
  if (status == MOVA_OK) return;
  fprintf(stderr, "%s: %s\n", mova_status_name(status), mova_last_error());
  exit(1);
}

static mova_result *features(mova_tensor *tensor) {
  mova_result *result;
  stop_if(mova_features(runtime, &image, encoder, &result));
  stop_if(mova_result_tensor(result, "features", tensor));
  return result;
}

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return 1000000000LL * time.tv_sec + time.tv_nsec;
}

int main(int count, char **arguments) {
  if (count != 8) return 2;
  encoder = arguments[2];
  image.width = atoi(arguments[4]);
  image.height = atoi(arguments[5]);
  image.format = MOVA_RGB8;
  size_t size = 3 * (size_t)image.width * (size_t)image.height;
  unsigned char *pixels = malloc(size);
  FILE *file = fopen(arguments[3], "rb"), *out = fopen(arguments[7], "wb");
  if (!pixels || !file || !out || fread(pixels, 1, size, file) != size) return 3;
  fclose(file);
  image.data = pixels;
  stop_if(mova_open(arguments[1], NULL, &runtime));
  mova_tensor tensor;
  mova_result *first = features(&tensor);
  if (fwrite(tensor.data, 1, (size_t)tensor.bytes, out) != tensor.bytes || fclose(out)) return 3;
  stop_if(mova_release(first));
  for (int calls = atoi(arguments[6]); calls > 0; calls--) {
    long long start = now();
    stop_if(mova_release(features(&tensor)));
    printf("%lld\n", now() - start);
  }
  stop_if(mova_close(runtime));
  free(pixels);
  return 0;
}
