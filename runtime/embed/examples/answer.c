/* Answers a question about an image, in C.

     answer BUNDLE IMAGE.ppm QUESTION [MAX_NEW_TOKENS [EXPERTS]]

   The answer appears as it is made; then come the tokens and the experts. */
#include <mova.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ppm.h"

/* One line to standard error, and the exit status. */
static int failed(const char *step, mova_status status) {
  fprintf(stderr, "answer: %s: %s: %s\n", step, mova_status_name(status), mova_last_error());
  return 1;
}

static int show(const char *text, size_t length, void *context) {
  (void)context;
  fwrite(text, 1, length, stdout);
  fflush(stdout);
  return 0; /* non-zero would end the answer */
}

static mova_status tell(mova_result *result) {
  const int64_t *tokens;
  const char *experts;
  size_t count;
  mova_status status = mova_result_tokens(result, &tokens, &count);
  if (status) return status;
  status = mova_result_experts(result, &experts, NULL);
  if (status) return status;
  printf("\ntokens:");
  for (size_t i = 0; i < count; i++) printf(" %" PRId64, tokens[i]);
  printf("\nexperts: %s\n", experts);
  return MOVA_OK;
}

int main(int count, char **arguments) {
  if (count < 4 || count > 6) {
    fprintf(stderr, "usage: answer BUNDLE IMAGE.ppm QUESTION [MAX_NEW_TOKENS [EXPERTS]]\n");
    return 2;
  }
  if (mova_abi_version() != MOVA_ABI_VERSION) {
    fprintf(stderr, "answer: compiled for another libmova than %s\n", mova_version());
    return 2;
  }
  ppm_image pixels;
  if (!ppm_read(arguments[2], &pixels)) {
    fprintf(stderr, "answer: %s: not a binary PPM file of 8 bits a channel\n", arguments[2]);
    return 2;
  }
  mova_image image = {0};
  image.data = pixels.pixels;
  image.width = pixels.width;
  image.height = pixels.height;
  image.format = MOVA_RGB8;
  mova_request request = {0};
  request.struct_size = sizeof request;
  if (count > 4) request.max_new_tokens = atoi(arguments[4]);
  if (count > 5) request.experts = arguments[5];

  mova_runtime *runtime;
  mova_result *result = NULL;
  int exit_status = 0;
  mova_status status = mova_open(arguments[1], NULL, &runtime);
  if (status) {
    free(pixels.pixels);
    return failed("open", status);
  }
  status = mova_stream(runtime, &image, arguments[3], &request, show, NULL, &result);
  if (status == MOVA_OK) status = tell(result);
  if (status) exit_status = failed("answer", status);
  mova_release(result);
  status = mova_close(runtime);
  if (status) exit_status = failed("close", status);
  free(pixels.pixels);
  return exit_status;
}
