/* plugin LIBMOVA.so BUNDLE: the library as a plugin's host loads it, its symbols and Python's hidden from others. */
#include <mova.h>

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define GET(name) *(void **)(&name##_here) = dlsym(library, #name)

static unsigned char pixels[32 * 32 * 3];

int main(int count, char **arguments) {
  if (count != 3) return 2;
  void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  mova_status (*mova_open_here)(const char *, const mova_options *, mova_runtime **);
  mova_status (*mova_features_here)(mova_runtime *, const mova_image *, const char *, mova_result **);
  mova_status (*mova_release_here)(mova_result *);
  mova_status (*mova_close_here)(mova_runtime *);
  const char *(*mova_last_error_here)(void);
  const char *(*mova_status_name_here)(mova_status);
  GET(mova_open);
  GET(mova_features);
  GET(mova_release);
  GET(mova_close);
  GET(mova_last_error);
  GET(mova_status_name);
  mova_runtime *runtime;
  mova_result *result;
  mova_image image = {pixels, 32, 32, 0, MOVA_RGB8, 0};
  mova_status status = mova_open_here(arguments[2], NULL, &runtime);
  if (!status) status = mova_features_here(runtime, &image, "pix2struct", &result);
  if (!status) status = mova_release_here(result);
  if (!status) status = mova_close_here(runtime);
  if (status) fprintf(stderr, "%s\n", mova_last_error_here());
  printf("%s\n", mova_status_name_here(status));
  return 0;
}
