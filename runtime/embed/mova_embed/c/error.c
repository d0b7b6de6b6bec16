/* The last error's text, one a thread. */
#include "inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "facts.h"

#define LONGEST 1024

static _Thread_local char last[LONGEST];

/* Cut where a character ends: text that is too long may have been cut amid one. */
static void whole_characters(char *text, size_t length) {
  size_t end = length;
  while (end > 0 && ((unsigned char)text[end - 1] & 0xC0) == 0x80) end--;
  if (end == 0) return;
  unsigned char first = (unsigned char)text[end - 1];
  size_t needed = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (length - (end - 1) < needed) text[end - 1] = 0;
}

mova_status mova_fail(mova_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(last, sizeof last, format, arguments);
  va_end(arguments);
  if (length >= (int)sizeof last) whole_characters(last, sizeof last - 1);
  return status;
}

mova_status mova_returned(int value) {
  if (value == 0) return mova_fail(MOVA_INTERNAL, "the call did not reach Python: see standard error");
  return (mova_status)(value - 1);
}

void mova_inner_say(const char *text) {
  mova_fail(MOVA_OK, "%s", text);
}

const char *mova_last_error(void) {
  return last;
}

const char *mova_status_name(mova_status status) {
  size_t index = (size_t)status;
  return index < sizeof status_names / sizeof *status_names ? status_names[index] : "MOVA_UNKNOWN";
}

int32_t mova_abi_version(void) {
  return MOVA_ABI_VERSION;
}

const char *mova_version(void) {
  return MOVA_VERSION;
}
