#define _POSIX_C_SOURCE 200809L /* sigaction */
/* signals BUNDLE IMAGE.ppm: what handlers a program has before and after it uses the library, and whether Ctrl-C still
   reaches its own. */
#include <mova.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "ppm.h"

#define SIGNALS 32

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
  (void)number;
  interrupted = 1;
}

static int quiet(const char *text, size_t length, void *context) {
  (void)text, (void)length, (void)context;
  return 0;
}

int main(int count, char **arguments) {
  ppm_image pixels;
  if (count != 3 || !ppm_read(arguments[2], &pixels)) return 2;
  signal(SIGINT, interrupt);
  struct sigaction before[SIGNALS], after[SIGNALS];
  for (int i = 1; i < SIGNALS; i++) sigaction(i, NULL, &before[i]);
  mova_runtime *runtime;
  mova_image image = {pixels.pixels, pixels.width, pixels.height, 0, MOVA_RGB8, 0};
  mova_request request = {0};
  request.struct_size = sizeof request;
  request.max_new_tokens = 2;
  if (mova_open(arguments[1], NULL, &runtime) ||
      mova_stream(runtime, &image, "Why?", &request, quiet, NULL, NULL)) {
    fprintf(stderr, "%s\n", mova_last_error());
    return 1;
  }
  int changed = 0;
  for (int i = 1; i < SIGNALS; i++) {
    sigaction(i, NULL, &after[i]);
    changed += before[i].sa_handler != after[i].sa_handler;
  }
  printf("handlers changed: %d\n", changed);
  raise(SIGINT);
  printf("SIGINT reached the program: %d\n", (int)interrupted);
  free(pixels.pixels);
  return mova_close(runtime) != MOVA_OK;
}
