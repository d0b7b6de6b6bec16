/* What a caller gives, before Python sees it: structures of another version, images that can't be in memory. */
#include "inside.h"

#include <string.h>

#define LARGEST_STRUCT 4096
#define MOST_PIXELS (INT64_C(1) << 28)

/* Copy a structure whose first field is its size. The caller's may be larger than ours if what we do not know is zero. */
static mova_status sized(void *own, size_t size, const void *given, const char *name) {
  memset(own, 0, size);
  if (given == NULL) return MOVA_OK;
  size_t told;
  memcpy(&told, given, sizeof told);
  if (told < size || told > LARGEST_STRUCT)
    return mova_fail(MOVA_INVALID_ARGUMENT, "struct_size of %s is %zu; set it to sizeof(%s), here %zu", name, told,
                     name, size);
  const unsigned char *bytes = given;
  for (size_t at = size; at < told; at++)
    if (bytes[at])
      return mova_fail(MOVA_INVALID_ARGUMENT, "%s has a field, %zu bytes in, that libmova %s does not know", name, at,
                       mova_version());
  memcpy(own, given, size);
  return MOVA_OK;
}

mova_status mova_checked_options(const mova_options *given, mova_options *options) {
  mova_status status = sized(options, sizeof *options, given, "mova_options");
  if (status) return status;
  const struct {
    const char *name;
    int32_t value;
  } switches[] = {{"prefetch", options->prefetch},
                  {"speculate", options->speculate},
                  {"experts_at_once", options->experts_at_once},
                  {"keep_compiled", options->keep_compiled}};
  for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
    if (switches[i].value < MOVA_DEFAULT || switches[i].value > MOVA_OFF)
      return mova_fail(MOVA_INVALID_ARGUMENT, "%s is MOVA_DEFAULT, MOVA_ON or MOVA_OFF, not %d", switches[i].name,
                       (int)switches[i].value);
  if (options->threads < 0 || options->max_context < 0)
    return mova_fail(MOVA_INVALID_ARGUMENT, "%s is %d; give a number from 1, or 0 for the default",
                     options->threads < 0 ? "threads" : "max_context",
                     (int)(options->threads < 0 ? options->threads : options->max_context));
  return MOVA_OK;
}

mova_status mova_checked_request(const mova_request *given, mova_request *request) {
  return sized(request, sizeof *request, given, "mova_request");
}

static int64_t bytes_of(int32_t format) {
  switch (format) {
    case MOVA_RGB8:
    case MOVA_BGR8:
      return 3;
    case MOVA_RGBA8:
      return 4;
    case MOVA_GRAY8:
      return 1;
    default:
      return 0;
  }
}

mova_status mova_checked_image(const mova_image *given, mova_image *image) {
  if (given == NULL) return mova_fail(MOVA_INVALID_ARGUMENT, "image is NULL");
  *image = *given;
  if (image->data == NULL) return mova_fail(MOVA_IMAGE, "image: data is NULL");
  int64_t pixel = bytes_of(image->format);
  if (pixel == 0)
    return mova_fail(MOVA_IMAGE, "image: format %d; give MOVA_RGB8, MOVA_BGR8, MOVA_RGBA8 or MOVA_GRAY8",
                     (int)image->format);
  if (image->reserved != 0) return mova_fail(MOVA_IMAGE, "image: reserved is %d, not 0", (int)image->reserved);
  if (image->width < 1 || image->height < 1)
    return mova_fail(MOVA_IMAGE, "image of %d x %d pixels", (int)image->width, (int)image->height);
  if ((int64_t)image->width * image->height > MOST_PIXELS)
    return mova_fail(MOVA_IMAGE, "image of %d x %d pixels: more than 2^28; scale it down first", (int)image->width,
                     (int)image->height);
  int64_t row = image->width * pixel, rows = image->height - 1;
  if (image->stride == 0) image->stride = row;
  int64_t stride = image->stride;
  if (stride > -row && stride < row)
    return mova_fail(MOVA_IMAGE, "image: stride %lld is less than a row's %lld bytes", (long long)stride,
                     (long long)row);
  if (stride > INT32_MAX || stride < -INT32_MAX)
    return mova_fail(MOVA_IMAGE, "image: stride %lld is no distance of rows, which is at most 2^31 - 1 bytes",
                     (long long)stride);
  uintptr_t data = (uintptr_t)image->data, before = stride < 0 ? (uintptr_t)(rows * -stride) : 0;
  uintptr_t behind = (uintptr_t)(stride < 0 ? row : rows * stride + row); /* at most 2^28 rows: no product overflows */
  if (before > data || behind > (uintptr_t)INTPTR_MAX || data > (uintptr_t)INTPTR_MAX - behind)
    return mova_fail(MOVA_IMAGE, "image: %d rows with stride %lld leave memory", (int)image->height, (long long)stride);
  return MOVA_OK;
}
