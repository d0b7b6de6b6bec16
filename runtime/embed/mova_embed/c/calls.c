/* The functions of mova.h: look at what was given, start Python, hand over. */
#include "inside.h"

static mova_status result_of(int value, uint64_t found, mova_result **result) {
  mova_status status = mova_returned(value);
  if (result) *result = (mova_result *)(uintptr_t)found; /* also where an answer was cancelled */
  return status;
}

/* What every call about an image and a text, which is called `what`, looks at first. */
static mova_status about_image(mova_runtime *runtime, const char *text, const char *what, const mova_image *given,
                               mova_image *image) {
  GIVEN(runtime);
  if (text == NULL) return mova_fail(MOVA_INVALID_ARGUMENT, "%s is NULL", what);
  return mova_checked_image(given, image);
}

mova_status mova_open(const char *path, const mova_options *options, mova_runtime **runtime) {
  GIVEN(runtime);
  *runtime = NULL;
  GIVEN(path);
  mova_options own;
  TRY(mova_checked_options(options, &own));
  TRY(mova_start());
  uint64_t found = 0;
  mova_status status = mova_returned(mova_inner_open(path, &own, &found));
  *runtime = (mova_runtime *)(uintptr_t)found;
  return status;
}

mova_status mova_close(mova_runtime *runtime) {
  GIVEN(runtime);
  TRY(mova_start());
  return mova_returned(mova_inner_close(number(runtime)));
}

mova_status mova_route(mova_runtime *runtime, const mova_image *image, const char *question, mova_result **result) {
  GIVEN(result);
  *result = NULL;
  mova_image own;
  TRY(about_image(runtime, question, "question", image, &own));
  TRY(mova_start());
  uint64_t found = 0;
  int value = mova_inner_route(number(runtime), &own, question, &found);
  return result_of(value, found, result);
}

mova_status mova_encode(mova_runtime *runtime, const mova_image *image, const char *question, const char *experts,
                        mova_result **result) {
  GIVEN(result);
  *result = NULL;
  mova_image own;
  TRY(about_image(runtime, question, "question", image, &own));
  TRY(mova_start());
  uint64_t found = 0;
  int value = mova_inner_encode(number(runtime), &own, question, experts, &found);
  return result_of(value, found, result);
}

mova_status mova_features(mova_runtime *runtime, const mova_image *image, const char *name, mova_result **result) {
  GIVEN(result);
  *result = NULL;
  mova_image own;
  TRY(about_image(runtime, name, "name", image, &own));
  TRY(mova_start());
  uint64_t found = 0;
  int value = mova_inner_features(number(runtime), &own, name, &found);
  return result_of(value, found, result);
}

/* An answer, told piece by piece where there is a callback. */
static mova_status answer(mova_runtime *runtime, const mova_image *image, const char *question,
                          const mova_request *request, mova_piece piece, void *context, mova_result **result) {
  mova_image own;
  mova_request wanted;
  TRY(about_image(runtime, question, "question", image, &own));
  TRY(mova_checked_request(request, &wanted));
  TRY(mova_start());
  uint64_t found = 0, *asked = result ? &found : NULL;
  int value = mova_inner_answer(number(runtime), &own, question, &wanted, piece, context, asked);
  return result_of(value, found, result);
}

mova_status mova_answer(mova_runtime *runtime, const mova_image *image, const char *question,
                        const mova_request *request, mova_result **result) {
  GIVEN(result);
  *result = NULL;
  return answer(runtime, image, question, request, NULL, NULL, result);
}

mova_status mova_stream(mova_runtime *runtime, const mova_image *image, const char *question,
                        const mova_request *request, mova_piece piece, void *context, mova_result **result) {
  if (result) *result = NULL;
  GIVEN(piece);
  return answer(runtime, image, question, request, piece, context, result);
}

mova_status mova_stats_json(mova_runtime *runtime, mova_result **result) {
  GIVEN(result);
  *result = NULL;
  GIVEN(runtime);
  TRY(mova_start());
  uint64_t found = 0;
  int value = mova_inner_stats(number(runtime), &found);
  return result_of(value, found, result);
}
