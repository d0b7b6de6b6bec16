/* The functions of mova.h that look into a result, or give it back. */
#include "inside.h"

#include <string.h>

enum { TEXT, JSON, EXPERTS }; /* as in results.py */

static mova_status text_of(mova_result *result, int kind, const char **text, size_t *length) {
  GIVEN(text);
  *text = NULL;
  if (length) *length = 0;
  GIVEN(result);
  TRY(mova_start());
  size_t found = 0;
  mova_status status = mova_returned(mova_inner_text(number(result), kind, text, &found));
  if (length) *length = found;
  return status;
}

mova_status mova_result_text(mova_result *result, const char **text, size_t *length) {
  return text_of(result, TEXT, text, length);
}

mova_status mova_result_json(mova_result *result, const char **text, size_t *length) {
  return text_of(result, JSON, text, length);
}

mova_status mova_result_experts(mova_result *result, const char **names, size_t *length) {
  return text_of(result, EXPERTS, names, length);
}

mova_status mova_result_tokens(mova_result *result, const int64_t **tokens, size_t *count) {
  GIVEN(tokens);
  GIVEN(count);
  *tokens = NULL;
  *count = 0;
  GIVEN(result);
  TRY(mova_start());
  return mova_returned(mova_inner_tokens(number(result), tokens, count));
}

mova_status mova_result_tensor(mova_result *result, const char *name, mova_tensor *tensor) {
  GIVEN(tensor);
  memset(tensor, 0, sizeof *tensor);
  GIVEN(result);
  GIVEN(name);
  TRY(mova_start());
  return mova_returned(mova_inner_tensor(number(result), name, tensor));
}

mova_status mova_result_dlpack(mova_result *result, const char *name, struct DLManagedTensor **tensor) {
  GIVEN(tensor);
  *tensor = NULL;
  GIVEN(result);
  GIVEN(name);
  TRY(mova_start());
  void *found = NULL;
  mova_status status = mova_returned(mova_inner_dlpack(number(result), name, &found));
  *tensor = found;
  return status;
}

mova_status mova_release(mova_result *result) {
  if (result == NULL) return MOVA_OK;
  TRY(mova_start());
  return mova_returned(mova_inner_release(number(result)));
}
