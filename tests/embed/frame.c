/* frame BUNDLE FORM WIDTH HEIGHT: how many bytes more than before a call for features of such a frame takes at its peak. */
#include <mova.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long status_field(const char *field) {
  char line[256];
  long kib = -1;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (strncmp(line, field, strlen(field)) == 0) kib = atol(line + strlen(field) + 1);
  if (file) fclose(file);
  return 1024 * kib;
}

static void forget_the_peak(void) {
  FILE *file = fopen("/proc/self/clear_refs", "w");
  if (file == NULL || fputs("5", file) < 0 || fclose(file)) exit(3);
}

static mova_status features(mova_runtime *runtime, const mova_image *image) {
  mova_result *result;
  mova_status status = mova_features(runtime, image, "dinov2", &result);
  return status ? status : mova_release(result);
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  const char *form = arguments[2];
  int width = atoi(arguments[3]), height = atoi(arguments[4]), format = MOVA_RGB8, channels = 3;
  if (!strcmp(form, "bgr")) format = MOVA_BGR8;
  if (!strcmp(form, "rgba")) format = MOVA_RGBA8, channels = 4;
  if (!strcmp(form, "gray")) format = MOVA_GRAY8, channels = 1;
  int64_t stride = (int64_t)width * channels + (strcmp(form, "strided") ? 0 : 64);
  size_t size = (size_t)stride * (size_t)height;
  unsigned char *pixels = malloc(size);
  if (pixels == NULL) return 3;
  unsigned seed = 1;
  for (size_t i = 0; i < size; i++) pixels[i] = (unsigned char)((seed = seed * 1664525u + 1013904223u) >> 24);

  mova_image image = {pixels, width, height, stride, format, 0};
  if (!strcmp(form, "upwards")) {
    image.data = pixels + (height - 1) * stride;
    image.stride = -stride;
  }
  mova_image small = image;
  small.width = small.height = 64;
  mova_runtime *runtime;
  mova_status status = mova_open(arguments[1], NULL, &runtime);
  if (!status) status = features(runtime, &small); /* what is loaded and kept from now on is not the frame's */
  long before = status_field("VmRSS:");
  forget_the_peak();
  if (!status) status = features(runtime, &image);
  printf("more at the peak: %ld\n", status_field("VmHWM:") - before);
  if (!status) status = mova_close(runtime);
  if (status) fprintf(stderr, "%s\n", mova_last_error());
  free(pixels);
  return status != MOVA_OK;
}
