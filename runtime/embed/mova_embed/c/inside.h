/* What the C files of the library have in common; programs do not see it. */
#ifndef MOVA_INSIDE_H
#define MOVA_INSIDE_H

#include "mova.h"

#include "inner.h"

/* Remember one line for this thread's mova_last_error(), and return the status. */
mova_status mova_fail(mova_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The status in what Python returned: it and one; zero comes from cffi, where the call did not get so far. */
mova_status mova_returned(int value);

/* A handle as the Python side has it. */
static inline uint64_t number(const void *handle) {
  return (uint64_t)(uintptr_t)handle;
}

/* In a function that returns a status: leave it where a step failed, or where an argument is NULL. */
#define TRY(step)                \
  do {                           \
    mova_status status_ = (step); \
    if (status_) return status_; \
  } while (0)

#define GIVEN(argument) \
  if ((argument) == NULL) return mova_fail(MOVA_INVALID_ARGUMENT, "%s is NULL", #argument)

/* mova_fail() for the Python side, whose text is complete. */
void mova_inner_say(const char *text);

/* Start Python if nobody did; MOVA_OK, or MOVA_PYTHON with a text. */
mova_status mova_start(void);

/* Copies of what the caller gave, seen to make sense: a structure that is whole, all defaults where `given` is NULL. */
mova_status mova_checked_options(const mova_options *given, mova_options *options);
mova_status mova_checked_request(const mova_request *given, mova_request *request);

/* And an image whose rows are within memory that can be, with its stride told. */
mova_status mova_checked_image(const mova_image *given, mova_image *image);

#endif
