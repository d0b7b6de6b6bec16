/* Everything a caller can get wrong: bad_calls BUNDLE. Prints "what: STATUS: text" for each; test_bad_calls.py knows what
   is right. It ends by itself with status 0: no call may end it. */
#include <mova.h>

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIDE 32

static unsigned char pixels[SIDE * SIDE * 4];

static void tell(const char *what, mova_status status) {
  printf("%s: %s: %s\n", what, mova_status_name(status), status ? mova_last_error() : "");
  fflush(stdout);
}

static mova_image good(void) {
  mova_image image = {0};
  image.data = pixels;
  image.width = image.height = SIDE;
  image.format = MOVA_RGB8;
  return image;
}

static int never(const char *text, size_t length, void *context) {
  (void)text, (void)length, (void)context;
  return 1;
}

static void *in_a_thread(void *nothing) {
  (void)nothing;
  printf("another thread's error: %s\n", *mova_last_error() ? mova_last_error() : "none");
  mova_route(NULL, NULL, NULL, NULL);
  return NULL;
}

static void before_anything(void) {
  mova_result *result;
  mova_image image = good();
  int64_t something = 0;
  printf("no error yet: %s\n", *mova_last_error() ? mova_last_error() : "none");
  printf("names: %s %s %s\n", mova_status_name(MOVA_OK), mova_status_name((mova_status)99),
         mova_status_name((mova_status)-1));
  tell("features before open, of NULL", mova_features(NULL, &image, "base", &result));
  tell("features before open, of a number", mova_features((mova_runtime *)(uintptr_t)9, &image, "base", &result));
  tell("features before open, of an address", mova_features((mova_runtime *)&something, &image, "base", &result));
  tell("close before open", mova_close((mova_runtime *)(uintptr_t)9));
  tell("release NULL", mova_release(NULL));
}

static void opening(const char *bundle) {
  mova_runtime *runtime;
  mova_options options = {0};
  tell("open nowhere", mova_open("/does/not/exist", NULL, &runtime));
  printf("its runtime: %s\n", runtime ? "something" : "NULL");
  tell("open NULL", mova_open(NULL, NULL, &runtime));
  tell("open to NULL", mova_open(bundle, NULL, NULL));
  tell("open a path that is no text", mova_open("\xff\xfe", NULL, &runtime));
  tell("options without their size", mova_open(bundle, &options, &runtime));
  struct {
    mova_options options;
    int newer;
  } larger = {0};
  larger.options.struct_size = sizeof larger;
  larger.newer = 1;
  tell("options of a newer header", mova_open(bundle, &larger.options, &runtime));
  larger.newer = 0;
  tell("the same, not used", mova_open(bundle, &larger.options, &runtime));
  mova_close(runtime);
  options.struct_size = (size_t)-1;
  tell("options of an absurd size", mova_open(bundle, &options, &runtime));
  options.struct_size = sizeof options;
  options.backend = "abacus";
  tell("an unknown backend", mova_open(bundle, &options, &runtime));
  options.backend = "\xc3\x28";
  tell("a backend that is not UTF-8", mova_open(bundle, &options, &runtime));
  options.backend = NULL;
  options.memory_budget = "plenty";
  tell("a budget that is no size", mova_open(bundle, &options, &runtime));
  options.memory_budget = NULL;
  options.prefetch = 3;
  tell("a switch that is none", mova_open(bundle, &options, &runtime));
  options.prefetch = MOVA_DEFAULT;
  options.threads = -1;
  tell("minus one thread", mova_open(bundle, &options, &runtime));
  options.threads = 0;
  options.lease_timeout = 1e300;
  tell("a timeout for ever and a day", mova_open(bundle, &options, &runtime));
}

static void images(mova_runtime *runtime) {
  mova_result *result;
  const struct {
    const char *what;
    const void *data;
    int32_t width, height;
    int64_t stride;
    int32_t format, reserved;
  } wrong[] = {
      {"no pixels", NULL, SIDE, SIDE, 0, MOVA_RGB8, 0},
      {"width 0", pixels, 0, SIDE, 0, MOVA_RGB8, 0},
      {"height 0", pixels, SIDE, 0, 0, MOVA_RGB8, 0},
      {"width -1", pixels, -1, SIDE, 0, MOVA_RGB8, 0},
      {"least height", pixels, SIDE, INT32_MIN, 0, MOVA_RGB8, 0},
      {"format 0", pixels, SIDE, SIDE, 0, 0, 0},
      {"format 5", pixels, SIDE, SIDE, 0, 5, 0},
      {"reserved", pixels, SIDE, SIDE, 0, MOVA_RGB8, 1},
      {"stride under a row", pixels, SIDE, SIDE, 3 * SIDE - 1, MOVA_RGB8, 0},
      {"stride up under a row", pixels, SIDE, SIDE, 1 - 3 * SIDE, MOVA_RGB8, 0},
      {"most pixels", pixels, INT32_MAX, INT32_MAX, 0, MOVA_RGBA8, 0},
      {"greatest stride", pixels, SIDE, SIDE, INT64_MAX, MOVA_RGB8, 0},
      {"least stride", pixels, SIDE, SIDE, INT64_MIN, MOVA_RGB8, 0},
      {"stride of 2^31", pixels, SIDE, 2, INT64_C(1) << 31, MOVA_RGB8, 0},
      {"rows beyond memory", (const void *)((uintptr_t)INTPTR_MAX - 99), 3, 1 << 26, INT32_MAX, MOVA_RGB8, 0},
      {"rows before memory", pixels, 3, 1 << 26, -INT32_MAX, MOVA_RGB8, 0},
      {"wraps around memory", (const void *)(UINTPTR_MAX - 8), SIDE, SIDE, 0, MOVA_RGB8, 0},
      {"begins before memory", (const void *)(uintptr_t)64, SIDE, 2, -3 * SIDE, MOVA_RGB8, 0},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    mova_image image = {wrong[i].data,   wrong[i].width,  wrong[i].height,
                        wrong[i].stride, wrong[i].format, wrong[i].reserved};
    char what[64];
    snprintf(what, sizeof what, "image: %s", wrong[i].what);
    tell(what, mova_features(runtime, &image, "pix2struct", &result));
  }
  tell("no image", mova_features(runtime, NULL, "base", &result));
}

static void requests(mova_runtime *runtime) {
  mova_result *result;
  mova_image image = good();
  mova_request request = {0};
  tell("features to NULL", mova_features(runtime, &image, "base", NULL));
  tell("features of NULL", mova_features(runtime, &image, NULL, &result));
  tell("features of nobody", mova_features(runtime, &image, "nobody", &result));
  tell("features of no text", mova_features(runtime, &image, "\xff", &result));
  tell("route without a question", mova_route(runtime, &image, NULL, &result));
  tell("an empty question", mova_route(runtime, &image, " ", &result));
  tell("a question that is not UTF-8", mova_answer(runtime, &image, "Wh\xffy?", NULL, &result));
  tell("an unknown expert", mova_encode(runtime, &image, "Why?", "sam,nobody", &result));
  tell("an expert twice", mova_encode(runtime, &image, "Why?", "sam, sam", &result));
  tell("a request without its size", mova_answer(runtime, &image, "Why?", &request, &result));
  request.struct_size = sizeof request;
  request.max_new_tokens = -1;
  tell("minus one token", mova_answer(runtime, &image, "Why?", &request, &result));
  request.max_new_tokens = 0;
  request.temperature = -1;
  tell("below absolute zero", mova_answer(runtime, &image, "Why?", &request, &result));
  request.temperature = 0;
  const char *const stops[] = {"", NULL};
  request.stop = stops;
  tell("an empty stop", mova_answer(runtime, &image, "Why?", &request, &result));
  tell("answer to NULL", mova_answer(runtime, &image, "Why?", NULL, NULL));
  tell("stream to nobody", mova_stream(runtime, &image, "Why?", NULL, NULL, NULL, NULL));
  tell("stats to NULL", mova_stats_json(runtime, NULL));
}

static void results(mova_runtime *runtime) {
  mova_result *result, *cancelled;
  mova_image image = good();
  mova_tensor tensor;
  struct DLManagedTensor *lent;
  const char *text;
  const int64_t *tokens;
  size_t count;
  tell("features", mova_features(runtime, &image, "pix2struct", &result));
  tell("its text", mova_result_text(result, &text, NULL));
  tell("its tokens", mova_result_tokens(result, &tokens, &count));
  tell("its gates", mova_result_tensor(result, "gates", &tensor));
  tell("its gates, lent", mova_result_dlpack(result, "gates", &lent));
  tell("its nothing", mova_result_tensor(result, NULL, &tensor));
  tell("to nothing", mova_result_tensor(result, "features", NULL));
  tell("a name that is not UTF-8", mova_result_tensor(result, "\xff", &tensor));
  tell("a runtime's text", mova_result_text((mova_result *)runtime, &text, NULL));
  tell("features of a result", mova_features((mova_runtime *)result, &image, "base", &cancelled));
  tell("close a result", mova_close((mova_runtime *)result));
  tell("release", mova_release(result));
  tell("release again", mova_release(result));
  tell("text after release", mova_result_text(result, &text, NULL));
  mova_request request = {0};
  request.struct_size = sizeof request;
  request.experts = "none";
  tell("a stream that is stopped", mova_stream(runtime, &image, "Why?", &request, never, NULL, &cancelled));
  tell("what it said", mova_result_tokens(cancelled, &tokens, &count));
  printf("tokens said: %s\n", count > 0 && count < 8 ? "a few" : "none, or too many");
  mova_release(cancelled);
  const int32_t set = 1;
  request.cancel = &set;
  tell("an answer nobody wants", mova_answer(runtime, &image, "Why?", &request, &cancelled));
  tell("what it said", mova_result_tokens(cancelled, &tokens, &count));
  printf("tokens said: %s, %zu\n", tokens ? "some" : "NULL", count);
  mova_release(cancelled);
}

static void after_a_fork(mova_runtime *runtime) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    tell("in a forked process", mova_close(runtime));
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  printf("the forked process: %s\n", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "ended" : "crashed");
}

int main(int count, char **arguments) {
  if (count != 2) return 2;
  before_anything();
  opening(arguments[1]);
  mova_runtime *runtime, *second;
  mova_result *result;
  mova_image image = good();
  tell("open", mova_open(arguments[1], NULL, &runtime));
  tell("open a second", mova_open(arguments[1], NULL, &second));
  images(runtime);
  requests(runtime);
  results(runtime);
  pthread_t thread;
  pthread_create(&thread, NULL, in_a_thread, NULL);
  pthread_join(thread, NULL);
  printf("this thread's error: %s\n", mova_last_error());
  tell("close", mova_close(runtime));
  tell("close again", mova_close(runtime));
  tell("features after close", mova_features(runtime, &image, "pix2struct", &result));
  tell("stats after close", mova_stats_json(runtime, &result));
  tell("the second still works", mova_features(second, &image, "pix2struct", &result));
  tell("close the second", mova_close(second));
  mova_tensor tensor;
  tell("a result after close", mova_result_tensor(result, "features", &tensor));
  printf("its rank: %d\n", (int)tensor.rank);
  mova_release(result);
  after_a_fork(second);
  return 0;
}
